"""Training with every limit, at every learning rate, on every task: see `__main__`."""
