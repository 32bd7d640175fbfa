"""The norm of each unit of a gradient, and the clip of single units."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms import floating_point
from keras_clip.norms.scale_factors import needs_no_clip
from keras_clip.types import Gradient, Tensor

Axes = tuple[int, ...]

# The authors divide by at least this number.
_SMALLEST_DIVISOR = 1e-6

_LARGEST_DIVISOR = 1e30

# In both dtypes of norms, a norm whose square underflows is below 1e-10.
_FAR_ABOVE_UNDERFLOW = 1e-9


class _Pair(NamedTuple):
    """A gradient and its weight, in the form in which the norms of their units are computed."""

    gradient: Tensor
    weight: Tensor
    axes: Axes


def clip_units(
    gradients: Sequence[Gradient],
    weights: Sequence[Tensor],
    ratio: Tensor,
    axes: Sequence[Axes],
    eps: float,
) -> list[Gradient]:
    """Limit the norm of each unit to `ratio * max(norm of the unit's weights, eps)`.

    Args:
        gradients: tensors, or slices of tensors.
        weights: tensors, in the same order.
        ratio: scalar tensor.
        axes: for each, the axes over which a unit extends.
        eps: float.
    """
    clipped = list(gradients)
    # An empty tensor has no largest entry to divide by.
    present = [i for i, weight in enumerate(weights) if 0 not in tuple(weight.shape)]
    if present:
        changed = _compiled_clip_units(
            [gradients[i] for i in present],
            [weights[i] for i in present],
            ratio,
            tuple(axes[i] for i in present),
            eps,
        )
        for position, gradient in zip(present, changed, strict=True):
            clipped[position] = gradient
    return clipped


def _clip_units(
    gradients: list[Gradient],
    weights: list[Tensor],
    ratio: Tensor,
    axes: Sequence[Axes],
    eps: float,
) -> list[Gradient]:
    pairs = [_pair(*each) for each in zip(gradients, weights, axes, strict=True)]
    norms_and_limits = _norms_and_limits(pairs, ratio, eps)
    untouched = [needs_no_clip(norm, limit) for norm, limit in norms_and_limits]

    def scaled() -> list[Gradient]:
        in_range = [floating_point.is_in_range(norm) for norm, _ in norms_and_limits]
        shrunk: list[Tensor] = backend.choose(
            _all_of(in_range),
            lambda: [norm for norm, _ in norms_and_limits],
            lambda: [
                _shrunk_norm(pair, norm)
                for pair, (norm, _) in zip(pairs, norms_and_limits, strict=True)
            ],
        )
        each = zip(gradients, norms_and_limits, shrunk, untouched, strict=True)
        return [_scaled(gradient, *both, own, same) for gradient, both, own, same in each]

    clipped: list[Gradient] = backend.choose(_all_of(untouched), lambda: gradients, scaled)
    return clipped


_compiled_clip_units = backend.compiled(_clip_units, static=(3, 4))


def _pair(gradient: Gradient, weight: Tensor, axes: Axes) -> _Pair:
    rows = gradient
    if backend.is_sparse(gradient):
        rows, indices = backend.row_totals(gradient)
        if 0 in axes:
            # Sum repeated rows; rows that are not stored add nothing to a norm over rows.
            rows = backend.norm_operand(gradient)
        else:
            weight = ops.take(weight, indices, axis=0)
    rows, weight = floating_point.magnitudes((rows, weight))
    dtype = floating_point.accumulation_dtype((rows, weight))
    return _Pair(ops.cast(rows, dtype), ops.cast(weight, dtype), axes)


def _norms_and_limits(
    pairs: Sequence[_Pair], ratio: Tensor, eps: float
) -> list[tuple[Tensor, Tensor]]:
    """Return the norms of the units of each pair, and their limits, one entry for each unit."""
    sums = [
        (_sum_of_squares(pair.gradient, pair.axes), _sum_of_squares(pair.weight, pair.axes))
        for pair in pairs
    ]
    of_sums = [
        _norm_and_limit(floating_point.root(g), floating_point.root(w), ratio, eps) for g, w in sums
    ]
    exact = [_is_exact(g, w, limit, eps) for (g, w), (_, limit) in zip(sums, of_sums, strict=True)]

    def rescaled() -> list[tuple[Tensor, Tensor]]:
        return [
            _norm_and_limit(
                floating_point.rescaled_unit_norms(pair.gradient, pair.axes),
                floating_point.rescaled_unit_norms(pair.weight, pair.axes),
                ratio,
                eps,
            )
            for pair in pairs
        ]

    chosen: list[tuple[Tensor, Tensor]] = backend.choose(_all_of(exact), lambda: of_sums, rescaled)
    return chosen


def _sum_of_squares(value: Tensor, axes: Axes) -> Tensor:
    squares = ops.square(value)
    # torch reads empty axes as all axes.
    return ops.sum(squares, axis=axes, keepdims=True) if axes else squares


def _norm_and_limit(
    norm: Tensor, weight_norm: Tensor, ratio: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    dtype = keras.backend.standardize_dtype(norm.dtype)
    ratio = ops.cast(ratio, dtype)
    ratio = ops.where(ratio < 0, ops.zeros_like(ratio), ratio)
    smallest = floating_point.scalar(eps, dtype)
    return norm, ratio * ops.where(weight_norm <= smallest, smallest, weight_norm)


def _is_exact(gradient_sum: Tensor, weight_sum: Tensor, limit: Tensor, eps: float) -> Tensor:
    """Whether no square that left the range matters.

    Squares that underflowed look like squares of zero, which are common. They do not matter if
    the limit is far above such norms.
    """
    of_gradient = floating_point.is_ordinary(gradient_sum)
    harmless = ops.logical_and(ops.isfinite(gradient_sum), limit >= _FAR_ABOVE_UNDERFLOW)
    of_weight = ops.isfinite(weight_sum)
    if eps < _FAR_ABOVE_UNDERFLOW:
        of_weight = floating_point.is_ordinary(weight_sum)
    return ops.logical_and(ops.all(ops.logical_or(of_gradient, harmless)), ops.all(of_weight))


def _shrunk_norm(pair: _Pair, norm: Tensor) -> Tensor:
    """Return the norms of the gradients times `shrinkage`, for norms above the range."""
    shrunk = pair.gradient * floating_point.shrinkage(norm)
    return floating_point.root(_sum_of_squares(shrunk, pair.axes))


def _scaled(
    gradient: Gradient, norm: Tensor, limit: Tensor, shrunk: Tensor, untouched: Tensor
) -> Gradient:
    dtype = keras.backend.standardize_dtype(norm.dtype)
    one, factor = ops.ones_like(norm), floating_point.shrinking_factor(dtype)
    smallest = floating_point.scalar(_SMALLEST_DIVISOR, dtype)
    # The reciprocal of a larger norm is flushed to zero, and XLA multiplies by it.
    first = ops.where(norm > _LARGEST_DIVISOR, one * factor, one)
    # An infinite entry leaves zeros beside its NaN.
    known = ops.logical_or(floating_point.is_in_range(norm), ops.isinf(norm))
    divisor = ops.where(norm < smallest, smallest, norm)
    divisor = ops.where(known, divisor * first, shrunk)
    limit = ops.where(untouched, ops.ones_like(limit), limit)

    def scale(values: Tensor) -> Tensor:
        wide = values if floating_point.is_complex(values) else ops.cast(values, norm.dtype)
        # The ratio of limit and norm may be too small for any float, so scale in steps.
        scaled = wide * ops.cast(first, wide.dtype) / ops.cast(divisor, wide.dtype)
        scaled = scaled * ops.cast(limit, wide.dtype)
        return ops.where(untouched, values, ops.cast(scaled, values.dtype))

    return backend.map_values(gradient, scale)


def _all_of(conditions: Sequence[Tensor]) -> Tensor:
    return ops.all(ops.stack([ops.all(condition) for condition in conditions]))
