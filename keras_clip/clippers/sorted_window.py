"""A sorted window of numbers, so that a percentile needs no sort.

The vector is in ascending order. Free places hold the largest number, because NaN debuggers stop
at infinity. Each update takes a few passes over the vector. A sort would cost more than the whole
step of some models.
"""

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms.floating_point import LARGEST
from keras_clip.types import Tensor


def empty(shape: tuple[int, ...], dtype: str) -> Tensor:
    """Return free places, which hold the largest number. An initializer of variables."""
    # The initializer `Constant` would round to float32 on the way to float64.
    return ops.zeros(shape, dtype=dtype) + LARGEST[dtype]


def replace(ascending: Tensor, oldest: Tensor, newest: Tensor) -> Tensor:
    """Replace `oldest`, an entry of `ascending`, by `newest`, and keep the order."""
    end = empty((1,), keras.backend.standardize_dtype(ascending.dtype))
    following = ops.concatenate([ascending[1:], end])
    without = backend.where(ascending < oldest, ascending, following)
    preceding = ops.concatenate([-end, without[:-1]])
    at_or_after = backend.where(preceding <= newest, newest, preceding)
    return backend.where(without <= newest, without, at_or_after)


def percentile(ascending: Tensor, count: Tensor, percent: Tensor) -> Tensor:
    """Return the percentile of the first `count` entries, interpolated linearly.

    Without entries it is the largest number.
    """
    last = ops.cast(count - 1, ascending.dtype)
    # In this order, 0 and 100 percent give exactly the first and the last entry.
    position = percent / 100.0 * last
    position = backend.where(position < last, position, last)
    position = backend.where(position > 0, position, ops.zeros_like(position))
    below = ops.cast(position, "int32")
    fraction = position - ops.cast(below, ascending.dtype)
    # After the last entry comes a free place, or the end of the vector.
    above = backend.where(below < count - 1, below + 1, below)
    lower, upper = ops.unstack(ops.take(ascending, ops.stack([below, above]), axis=0), 2)
    return backend.where(fraction > 0, lower + fraction * (upper - lower), lower)
