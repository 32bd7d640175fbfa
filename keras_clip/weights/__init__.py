"""Bounds on weights after each update."""
