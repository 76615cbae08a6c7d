"""Laws of mixtures: from shares of groups to the loss on one held-out group. All have the same functions."""
