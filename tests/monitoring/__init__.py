"""Seeing what was clipped."""
