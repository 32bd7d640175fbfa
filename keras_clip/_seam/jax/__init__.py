"""JAX: nothing here is imported on another backend."""
