"""Measurements behind the figures in the README; see `benchmarks/README.md`."""
