"""Bounds on weights, right after an update."""
