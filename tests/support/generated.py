"""Gradients from hypothesis, with constant shapes.

JAX compiles again for every new shape. Every draw therefore has one array of each rank, and only
the values vary.
"""

import keras
import numpy as np
from hypothesis import strategies as st

SHAPES = [(), (1,), (3,), (2, 3), (2, 1, 2), (1, 2, 2, 2), (2, 1, 1, 2, 2)]
DTYPES = ["float32", "float16", "float32", "float32", "bfloat16", "float32", "float32"]

SCALES = [0.0, 1e-40, 1e-35, 1e-10, 1e-3, 1.0, 30.0, 1e10, 1e30]


@st.composite
def gradients(draw, special=None, all_scales=tuple(SCALES)):
    """A list with one array per shape, some in half precision; one entry may be `special`."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    made = []
    for shape, dtype in zip(SHAPES, DTYPES, strict=True):
        scales = [s for s in all_scales if dtype == "float32" or s == 0 or 1e-3 <= s <= 1e3]
        scale = draw(st.sampled_from(scales))
        # Half precision comes from float32, because NumPy has no bfloat16.
        made.append((generator.normal(size=shape) * scale).astype("float32"))
    if special is not None:
        made[draw(st.sampled_from([1, 2, 3, 5, 6]))].reshape(-1)[0] = special
    return made


def in_their_dtypes(arrays):
    """Tensors of `DTYPES`."""
    return [keras.ops.cast(a, dtype) for a, dtype in zip(arrays, DTYPES, strict=True)]


def float64_of(tensors):
    """Return the tensors as NumPy arrays in float64."""
    wide = [keras.ops.cast(tensor, "float32") for tensor in tensors]
    return [np.float64(keras.ops.convert_to_numpy(tensor)) for tensor in wide]


def assert_equal_to_rounding(actual, expected):
    """To the precision of each of `DTYPES`."""
    for one, other, dtype in zip(actual, expected, DTYPES, strict=True):
        rtol = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
        # Below the smallest normal number of its type a result may be flushed to zero.
        atol = {"float32": 1.2e-38, "float16": 6.2e-5, "bfloat16": 1.2e-38}[dtype]
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
