"""Gradients as hypothesis makes them up, of shapes that stay the same.

Each new shape is compiled anew on JAX, so that shapes of every rank are all there at once and
the values vary.
"""

import numpy as np
from hypothesis import strategies as st

SHAPES = [(), (1,), (3,), (2, 3), (2, 1, 2), (1, 2, 2, 2), (2, 1, 1, 2, 2)]
DTYPES = ["float32", "float16", "float32", "float32", "bfloat16", "float32", "float32"]

SCALES = [0.0, 1e-40, 1e-35, 1e-10, 1e-3, 1.0, 30.0, 1e10, 1e30]


@st.composite
def gradients(draw, special=None):
    """A list with one array per shape, some in half precision; one entry may be `special`."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    made = []
    for shape, dtype in zip(SHAPES, DTYPES, strict=True):
        scales = [s for s in SCALES if dtype == "float32" or s == 0 or 1e-3 <= s <= 1e3]
        scale = draw(st.sampled_from(scales))
        # Half precision by way of float32, as NumPy has no bfloat16.
        made.append((generator.normal(size=shape) * scale).astype("float32"))
    if special is not None:
        made[draw(st.sampled_from([1, 2, 3, 5, 6]))].reshape(-1)[0] = special
    return made
