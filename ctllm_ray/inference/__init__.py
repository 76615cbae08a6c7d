"""Inference: engines, sampling, and conversion of ids back to text."""
