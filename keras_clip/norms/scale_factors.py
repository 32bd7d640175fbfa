"""The factors that gradients are multiplied by, given their norm and its threshold."""

import math
from collections.abc import Callable

import keras
from keras import ops

from keras_clip.norms.floating_point import LARGEST, is_in_range, shrinking_factor
from keras_clip.types import Tensor


def needs_no_clip(norm: Tensor, max_norm: Tensor) -> Tensor:
    """Whether the gradients stay as they are: at or below the threshold, or only observed.

    False for a NaN norm, so that a NaN shows in the step, as with `tf.clip_by_global_norm`.
    """
    return ops.logical_or(ops.less_equal(norm, max_norm), ops.isinf(max_norm))


def factors(
    norm: Tensor, max_norm: Tensor, shrunk: Callable[[], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Two factors whose product is `max_norm / norm`, both exactly 1 where nothing is clipped.

    Hazard: for a norm of 1e38 the ratio is subnormal, which processors round coarsely or
    flush to zero. The first factor is 1 except then.

    Args:
        norm: tensor, a norm or several.
        max_norm: tensor, the threshold or several.
        shrunk: function that returns `shrinking_factor` times the norm, for one not in range, or
            `norm` times the same where it is. Without it the norm counts as `saturated`.
    """
    untouched = needs_no_clip(norm, max_norm)
    one = ops.ones_like(norm)
    # Nothing is computed with a threshold or a norm that does not count: neither an infinity nor
    # the derivative of a quotient by zero.
    norm, limit = ops.where(untouched, one, norm), ops.where(untouched, one, max_norm)
    smallest = shrinking_factor(keras.backend.standardize_dtype(norm.dtype))
    needs_two = needs_two_factors(norm, limit)
    first = ops.where(needs_two, one * smallest, one)
    reduced = norm * first
    if shrunk is not None:
        reduced = ops.where(is_in_range(norm), reduced, shrunk())
    # The quotient, but its derivative squares no norm. NaN where the norm is not finite.
    same = ops.stop_gradient(reduced)
    return first, limit / same * (1.0 / (reduced / same))


def needs_two_factors(norm: Tensor, max_norm: Tensor) -> Tensor:
    """Whether `max_norm / norm` may not be one factor: see `factors`."""
    smallest = shrinking_factor(keras.backend.standardize_dtype(norm.dtype))
    is_subnormal = ops.logical_and(ops.less(max_norm, norm * smallest), max_norm > 0)
    extreme = ops.logical_and(is_subnormal, norm > 1.0)
    return ops.logical_or(extreme, ops.logical_not(is_in_range(norm)))


def factors_of_numbers(
    norm: float, max_norm: float, dtype: str, shrunk: Callable[[], float]
) -> tuple[float, float]:
    """`factors` where something is clipped and both are known on the host.

    They are rounded to `dtype` when they are used. The same bits: a quotient of two float32,
    taken in float64, rounds as the one of float32.
    """
    smallest = shrinking_factor(dtype)
    if not norm < LARGEST[dtype]:
        reduced = shrunk() if math.isfinite(norm) else math.nan
        return smallest, max_norm / reduced
    first = smallest if 0 < max_norm < norm * smallest and norm > 1.0 else 1.0
    return first, max_norm / (norm * first)
