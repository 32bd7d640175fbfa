"""What the constructor of `ClippedOptimizer` accepts."""
