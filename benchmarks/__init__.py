"""Measurements behind the figures in the documentation; see `benchmarks/README.md`."""
