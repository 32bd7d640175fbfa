"""The whole optimizer in NumPy, written from the documentation and Keras's formulas."""
