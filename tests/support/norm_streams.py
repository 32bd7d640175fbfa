"""Streams of gradients of given norms, for tests that generate them."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

SHAPES = [(2, 2), (), (3,)]

# Few distinct norms, so that equal ones meet; zeros; and any magnitude.
norms = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 1.5, 2.0, 8.0]),
    st.floats(-20.0, 20.0).map(lambda exponent: 10.0**exponent),
    st.floats(0.5, 1.5),
)


def gradients_of_norms(each: Sequence[float], dtype: str = "float32") -> list[np.ndarray]:
    """One gradient for each shape of `SHAPES`, of about these norms, constant inside."""
    return [
        np.full(shape, norm / np.sqrt(np.prod(shape)), dtype)
        for norm, shape in zip(each, SHAPES, strict=True)
    ]


def assert_gradients_close(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], rtol: float = 1e-5
) -> None:
    """To `rtol`, except numbers that float32 cannot hold or CPUs flush to zero."""
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-37)
