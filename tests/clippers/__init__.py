"""A test file for each clipper."""
