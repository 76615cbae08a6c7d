"""The phases of the pass boilerplate: what is counted of lines, which of them pass the bounds, their
removal."""
