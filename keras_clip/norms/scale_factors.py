"""The factors that scale gradients, given their norm and its threshold."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_clip.norms.floating_point import LARGEST, is_in_range, shrinking_factor
from keras_clip.types import Tensor


def needs_no_clip(norm: Tensor, max_norm: Tensor) -> Tensor:
    """Whether the gradients stay unchanged: at or below the threshold, or only observed.

    False for a NaN norm: the step then shows the NaN, as with `tf.clip_by_global_norm`.
    """
    return ops.logical_or(ops.less_equal(norm, max_norm), ops.isinf(max_norm))


def factors(
    norm: Tensor, max_norm: Tensor, shrunk: Callable[[], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Two factors whose product is `max_norm / norm`; both are exactly 1 if nothing is clipped.

    Hazard: for a norm of 1e38 the ratio is subnormal, and processors round it coarsely or flush
    it to zero. Only then is the first factor not 1.

    Args:
        norm: tensor, a norm or several.
        max_norm: tensor, the threshold or several.
        shrunk: function that returns the norm times `shrinking_factor`, for a norm above the
            range. Without it such a norm counts as the largest number.
    """
    untouched = needs_no_clip(norm, max_norm)
    one = ops.ones_like(norm)
    # Unused norms and thresholds are replaced, so no infinity and no division by zero occurs.
    norm, limit = ops.where(untouched, one, norm), ops.where(untouched, one, max_norm)
    smallest = shrinking_factor(keras.backend.standardize_dtype(norm.dtype))
    needs_two = needs_two_factors(norm, limit)
    first = ops.where(needs_two, one * smallest, one)
    reduced = norm * first
    if shrunk is not None:
        reduced = ops.where(is_in_range(norm), reduced, shrunk())
    # Equal to the quotient, but its derivative squares no norm. NaN if the norm is not finite.
    same = ops.stop_gradient(reduced)
    return first, limit / same * (1.0 / (reduced / same))


def needs_two_factors(norm: Tensor, max_norm: Tensor) -> Tensor:
    """Whether `max_norm / norm` needs two factors: see `factors`."""
    smallest = shrinking_factor(keras.backend.standardize_dtype(norm.dtype))
    is_subnormal = ops.logical_and(ops.less(max_norm, norm * smallest), max_norm > 0)
    extreme = ops.logical_and(is_subnormal, norm > 1.0)
    return ops.logical_or(extreme, ops.logical_not(is_in_range(norm)))


def factors_of_numbers(
    norm: float, max_norm: float, dtype: str, shrunk: Callable[[], float]
) -> tuple[float, float]:
    """Return `factors` of a clip whose norm and threshold are numbers on the host.

    They are rounded to `dtype` at use and give the same bits: the float64 quotient of two float32
    rounds to their float32 quotient.
    """
    smallest = shrinking_factor(dtype)
    if not norm < LARGEST[dtype]:
        reduced = shrunk() if math.isfinite(norm) else math.nan
        return smallest, max_norm / reduced
    first = smallest if 0 < max_norm < norm * smallest and norm > 1.0 else 1.0
    return first, max_norm / (norm * first)
