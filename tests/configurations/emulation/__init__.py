"""The whole optimizer once more, in NumPy, written from the documentation and Keras's formulas."""
