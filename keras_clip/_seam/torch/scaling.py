"""Scale gradients to a given norm on torch."""

import math
from collections.abc import Sequence
from functools import partial

import keras
import torch

from keras_clip._seam.torch import host
from keras_clip._seam.torch.gradients import norm_operand
from keras_clip._seam.torch.kept_gradients import are_kept_by
from keras_clip._seam.torch.multiplication import multiplied, multiplied_each
from keras_clip._seam.torch.shards import whole
from keras_clip.norms import floating_point, scale_factors
from keras_clip.types import Gradient, Gradients, Tensor, Variable


def scale_to_norm(
    gradients: Gradients,
    norm: Tensor,
    max_norm: Tensor,
    overwritable: Sequence[Variable],
    norm_type: float,
) -> list[Gradient]:
    """Multiply all gradients by `max_norm / norm` if the norm is above the threshold."""
    if not host.can_read(norm):
        in_place = are_kept_by(overwritable, gradients)
        # A second norm would be measured at every step. Without it, a norm above the range counts
        # as the largest number, and the gradients stay longer than `max_norm`.
        return multiplied(gradients, *scale_factors.factors(norm, max_norm), in_place=in_place)
    # In Python numbers: for a small model, each operation on a tensor costs.
    limit, known_norm = float(max_norm.detach()), float(norm.detach())
    if known_norm <= limit or math.isinf(limit):
        return list(gradients)
    dtype = keras.backend.standardize_dtype(norm.dtype)

    def shrunk() -> Tensor:
        return _shrunk_norm(gradients, norm, norm_type)

    # With a norm that is not finite, all would become NaN and hide the gradient that caused it.
    in_place = math.isfinite(known_norm) and are_kept_by(overwritable, gradients)
    if norm.requires_grad or max_norm.requires_grad:
        # A number has no derivative.
        both = scale_factors.factors(norm, max_norm, shrunk)
        return multiplied(gradients, *both, in_place=in_place)
    dtype = keras.backend.standardize_dtype(norm.dtype)
    numbers = scale_factors.factors_of_numbers(known_norm, limit, dtype, lambda: float(shrunk()))
    factors = [torch.tensor(factor, dtype=norm.dtype) for factor in numbers if factor != 1.0]
    return multiplied(gradients, *factors, in_place=in_place)


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply each gradient by `limit / norm` if any norm is above its limit."""
    # A number has no derivative.
    if host.can_read(norms) and not (norms.requires_grad or limits.requires_grad):
        return _scaled_each_on_host(gradients, norms, limits, overwritable)
    in_place = are_kept_by(overwritable, gradients)
    shrunk = partial(_shrunk_norms, gradients, norms) if host.can_read(norms) else None
    first, second = scale_factors.factors(norms, limits, shrunk)
    return [
        multiplied([gradient], first[place], second[place], in_place=in_place)[0]
        for place, gradient in enumerate(gradients)
    ]


def _scaled_each_on_host(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply the gradients above their limit, with one call for each factor."""
    dtype = keras.backend.standardize_dtype(norms.dtype)

    def factors_at(place: int, norm: float, limit: float) -> tuple[float, float]:
        def shrunk() -> float:
            return float(_shrunk_norm([gradients[place]], norms[place]))

        return scale_factors.factors_of_numbers(norm, limit, dtype, shrunk)

    factors = {
        place: factors_at(place, norm, limit)
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


def _shrunk_norm(gradients: Gradients, norm: Tensor, norm_type: float = 2.0) -> Tensor:
    operands = [whole(norm_operand(gradient)) for gradient in gradients]
    return floating_point.shrunk_norm(operands, norm, norm_type)


def _shrunk_norms(gradients: Gradients, norms: Tensor) -> Tensor:
    if bool(floating_point.is_in_range(norms).all()):
        return norms
    each = zip(gradients, norms, strict=True)
    return torch.stack([_shrunk_norm([gradient], norm) for gradient, norm in each])
