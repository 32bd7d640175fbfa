"""Fixtures for the tests of clippers."""

import keras
import pytest


@pytest.fixture(scope="session")
def has_float64() -> bool:
    """Whether the backend keeps float64; JAX does only if it is set when the process starts."""
    if keras.config.backend() != "jax":
        return True
    import jax

    return bool(jax.config.jax_enable_x64)
