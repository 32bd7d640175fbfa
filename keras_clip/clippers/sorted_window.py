"""A window of numbers kept sorted, so that a percentile of it needs no sort.

Vectors in ascending order, `empty` where the window is not full yet: no infinity, which NaN
debuggers stop at. The arithmetic is a few passes over the vector: a sort at each step would cost
more than some models' whole step.
"""

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms.floating_point import LARGEST
from keras_clip.types import Tensor


def empty(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return empty places: they hold the largest number. An initializer of variables."""
    # Not `Constant`, which rounds a number to float32 on its way to float64.
    return ops.zeros(shape, dtype=dtype) + LARGEST[dtype]


def replace(ascending: Tensor, oldest: Tensor, newest: Tensor) -> Tensor:
    """Take `oldest`, which is in `ascending`, out and put `newest` in."""
    end = empty((1,), keras.backend.standardize_dtype(ascending.dtype))
    following = ops.concatenate([ascending[1:], end])
    without = backend.where(ascending < oldest, ascending, following)
    preceding = ops.concatenate([-end, without[:-1]])
    at_or_after = backend.where(preceding <= newest, newest, preceding)
    return backend.where(without <= newest, without, at_or_after)


def percentile(ascending: Tensor, count: Tensor, percent: Tensor) -> Tensor:
    """Percentile of the first `count` entries, interpolated linearly; `empty` if there are none."""
    last = ops.cast(count - 1, ascending.dtype)
    # In this order: 0 and 100 percent are the first and the last entry exactly.
    position = percent / 100.0 * last
    position = backend.where(position < last, position, last)
    position = backend.where(position > 0, position, ops.zeros_like(position))
    below = ops.cast(position, "int32")
    fraction = position - ops.cast(below, ascending.dtype)
    # Beyond the last entry there is an empty place, or the end of the vector.
    above = backend.where(below < count - 1, below + 1, below)
    lower, upper = ops.unstack(ops.take(ascending, ops.stack([below, above]), axis=0), 2)
    return backend.where(fraction > 0, lower + fraction * (upper - lower), lower)
