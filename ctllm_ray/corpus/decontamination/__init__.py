"""The parts of the pass `decontaminate`: evaluation sets, their index, the search, the removal."""
