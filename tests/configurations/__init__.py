"""Training with options drawn at random, compared with an emulation in NumPy."""
