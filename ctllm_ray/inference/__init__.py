"""Models that answer: engines, sampling, ids back to text."""
