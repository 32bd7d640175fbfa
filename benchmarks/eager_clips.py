"""The clip alone on torch, on a CPU, call by call."""

from collections.abc import Callable
from typing import Any

import keras
import torch

import keras_clip
from benchmarks.interleaved import Variant
from keras_clip import Update

PEER = "torch.nn.utils.clip_grad_norm_"
SPARSE = False


class Clips:
    """Gradients of some steps, and calls to clip them.

    Nothing is compiled. The gradients are written again every time, as by a backward pass: the
    peer overwrites them, and keras_clip overwrites each `.grad` that torch keeps.

    Args:
        sets: for each step a list of NumPy arrays.
    """

    def __init__(self, sets: list[list[Any]]) -> None:
        self.sets = [[torch.from_numpy(gradient.copy()) for gradient in own] for own in sets]
        self.gradients = [torch.empty_like(gradient) for gradient in self.sets[0]]
        self.variables = [keras.Variable(torch.zeros_like(g), dtype=g.dtype) for g in self.sets[0]]
        self.parameters = [variable.value for variable in self.variables]
        self.step = torch.tensor(0)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def variant(self, function: Callable[..., Any], *limit: float) -> Variant:
        """Time the function of the gradients of a step, and of limits if any."""
        constants = [torch.tensor(value) for value in limit]

        def prepare(index: int) -> list[Any]:
            torch._foreach_copy_(self.gradients, self.sets[index])
            return self.gradients

        def run(gradients: list[Any]) -> Any:
            with torch.no_grad():
                result = function(gradients, *constants)
            last = result[-1] if isinstance(result, list) else result
            return result, float(last.view(-1)[0])

        return Variant(prepare, run)

    def by_keras_clip(self, gradients: list[Any], limit: Any) -> list[Any]:
        """Clip as an optimizer does in `fit`."""
        update = Update(gradients, self.variables, self.step, may_overwrite=True)
        return list(update.scaled_to_norm(limit).gradients)

    def by_peer(self, gradients: list[Any], limit: Any) -> list[Any]:
        """Clip in place."""
        torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        return gradients


def by_keras(limit: float) -> Callable[[list[Any]], list[Any]]:
    return keras.optimizers.SGD(global_clipnorm=limit)._clip_gradients


def without_safety(gradients: list[Any], limit: Any) -> list[Any]:
    """Clip if needed, by a norm that is summed in float32."""
    norm = unsafe_norm(gradients)
    if norm <= limit:
        return gradients
    torch._foreach_mul_(gradients, limit / norm)
    return gradients


def safe_norm(gradients: list[Any]) -> Any:
    return keras_clip.global_norm(gradients)


def unsafe_norm(gradients: list[Any]) -> Any:
    return torch.nn.utils.get_total_norm(gradients, foreach=True)
