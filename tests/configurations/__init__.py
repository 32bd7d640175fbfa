"""Options drawn at random, trained with, and compared with an emulation in NumPy."""
