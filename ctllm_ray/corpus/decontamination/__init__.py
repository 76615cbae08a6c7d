"""What the pass decontaminate is made of: evaluation sets, their index, where pages hold items, what became
of them."""
