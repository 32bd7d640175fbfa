"""Each clipper against its definition, reference vectors and NumPy."""
