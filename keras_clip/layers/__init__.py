"""Layers and their variables: the axes of a unit, patterns for paths."""
