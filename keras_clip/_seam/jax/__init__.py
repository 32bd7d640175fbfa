"""The JAX backend, which is imported only on JAX."""
