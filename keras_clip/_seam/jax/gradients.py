"""Dense and sparse gradients on JAX."""

from collections.abc import Callable
from typing import Any

from jax.experimental.sparse import BCOO
from keras import ops

from keras_clip.types import Gradient, Tensor


def as_gradient(value: Any) -> Gradient:
    """Convert to an array; a sparse array stays sparse."""
    return value if isinstance(value, BCOO) else ops.convert_to_tensor(value)


def is_sparse(gradient: Gradient) -> bool:
    """Return whether it is a `BCOO`."""
    return isinstance(gradient, BCOO)


def values(gradient: Gradient) -> Tensor:
    """Return the array, or the data of a sparse one."""
    return gradient.data if is_sparse(gradient) else gradient


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the array, or to the data of a sparse one."""
    if not is_sparse(gradient):
        return function(gradient)
    return BCOO(
        (function(gradient.data), gradient.indices),
        shape=gradient.shape,
        indices_sorted=gradient.indices_sorted,
        unique_indices=gradient.unique_indices,
    )


def norm_operand(gradient: Gradient) -> Tensor:
    """Return the values, with repeated entries of a sparse array summed."""
    if isinstance(gradient, BCOO):
        # With `nse`, the shape is static, as `jit` requires.
        return gradient.sum_duplicates(nse=gradient.nse).data
    return gradient
