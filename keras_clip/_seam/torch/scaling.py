"""The clip, given the norm, on torch."""

import math
from collections.abc import Sequence

import keras
import torch

from keras_clip._seam.torch import host
from keras_clip._seam.torch.kept_gradients import are_kept_by
from keras_clip._seam.torch.multiplication import multiplied, multiplied_each
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor, Variable


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    if not host.can_read(norm):
        in_place = are_kept_by(overwritable, gradients)
        return multiplied(gradients, *floating_point.factors(norm, max_norm), in_place=in_place)
    # In Python, as for a small model each operation on a tensor counts.
    limit, known_norm = float(max_norm.detach()), float(norm.detach())
    if known_norm <= limit or math.isinf(limit):
        return list(gradients)
    # Where the norm is not finite all would become NaN, and nobody could find the one it was.
    in_place = math.isfinite(known_norm) and are_kept_by(overwritable, gradients)
    if norm.requires_grad or max_norm.requires_grad:
        # A number has no derivative.
        return multiplied(gradients, *floating_point.two_factors(norm, max_norm), in_place=in_place)
    dtype = keras.backend.standardize_dtype(norm.dtype)
    both = floating_point.two_factors_of_numbers(known_norm, limit, dtype)
    factors = [torch.tensor(factor, dtype=norm.dtype) for factor in both if factor != 1.0]
    return multiplied(gradients, *factors, in_place=in_place)


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    # A number has no derivative.
    if host.can_read(norms) and not (norms.requires_grad or limits.requires_grad):
        return _scaled_each_on_host(gradients, norms, limits, overwritable)
    in_place = are_kept_by(overwritable, gradients)
    first, second = floating_point.factors(norms, limits)
    return [
        multiplied([gradient], first[place], second[place], in_place=in_place)[0]
        for place, gradient in enumerate(gradients)
    ]


def _scaled_each_on_host(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply in one call a factor those that are above their limit."""
    dtype = keras.backend.standardize_dtype(norms.dtype)
    factors: dict[int, tuple[float, float]] = {
        place: floating_point.two_factors_of_numbers(norm, limit, dtype)
        for place, (norm, limit) in enumerate(zip(norms.tolist(), limits.tolist(), strict=True))
        if not (norm <= limit or math.isinf(limit))
    }
    scaled = list(gradients)
    if not factors:
        return scaled
    in_place = are_kept_by(overwritable, gradients)
    for which in (0, 1):
        places = [place for place in factors if factors[place][which] != 1.0]
        own = [factors[place][which] for place in places]
        products = multiplied_each([scaled[place] for place in places], own, norms, in_place)
        for place, product in zip(places, products, strict=True):
            scaled[place] = product
    return scaled
