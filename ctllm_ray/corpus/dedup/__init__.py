"""The phases of the passes that remove copies, and what they share."""
