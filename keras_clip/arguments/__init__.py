"""Checks, forms and texts of arguments."""
