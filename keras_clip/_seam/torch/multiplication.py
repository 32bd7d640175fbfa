"""Multiply many tensors with few calls of torch."""

from collections.abc import Sequence

import torch

from keras_clip._seam.torch.kinds import by_kind
from keras_clip._seam.torch.shards import map_shards
from keras_clip.types import Gradient, Gradients, Tensor

_HALF = (torch.float16, torch.bfloat16)


def multiplied_each(
    gradients: Gradients, factors: Sequence[float], like: Tensor, in_place: bool
) -> list[Gradient]:
    """Multiply each tensor by its own number, with one call for each kind."""
    products = list(gradients)
    for kind, positions in by_kind(gradients).items():
        own = [gradients[position] for position in positions]
        numbers = [factors[position] for position in positions]
        if kind is None or kind[1] in _HALF:
            tensors = [torch.tensor(number, dtype=like.dtype) for number in numbers]
            scaled = [_multiplied_alone(g, [f]) for g, f in zip(own, tensors, strict=True)]
        elif in_place:
            torch._foreach_mul_(own, numbers)
            continue
        else:
            scaled = torch._foreach_mul(own, numbers)
        for position, product in zip(positions, scaled, strict=True):
            products[position] = product
    return products


def multiplied(gradients: Gradients, *factors: Tensor, in_place: bool) -> list[Gradient]:
    """Multiply all tensors by every factor, with one call for each kind and factor.

    Half precision is multiplied in float32 and never in place.
    """
    products = list(gradients)
    multiply = _multiply_in_place if in_place else torch._foreach_mul
    for kind, positions in by_kind(gradients).items():
        scaled = [gradients[position] for position in positions]
        if kind is None or kind[1] in _HALF:
            scaled = [_multiplied_alone(gradient, factors) for gradient in scaled]
        else:
            for factor in factors:
                scaled = multiply(scaled, factor.to(*kind))
        for position, product in zip(positions, scaled, strict=True):
            products[position] = product
    return products


def _multiply_in_place(tensors: list[Tensor], factor: Tensor) -> list[Tensor]:
    torch._foreach_mul_(tensors, factor)
    return tensors


def _multiplied_alone(gradient: Gradient, factors: Sequence[Tensor]) -> Gradient:
    def multiply(values: Tensor) -> Tensor:
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        for factor in factors:
            wide = wide * factor.to(wide.device)
        return wide.to(values.dtype)

    return multiply(gradient) if gradient.is_sparse else map_shards(gradient, multiply)
