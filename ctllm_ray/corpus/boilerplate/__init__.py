"""The phases of the pass `boilerplate`: count lines, apply the thresholds, remove lines."""
