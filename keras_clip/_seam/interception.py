"""Stepping in between the gradients and the update of whatever is wrapped."""

from typing import Protocol

from keras_clip._seam import backend
from keras_clip._seam.multi_optimizer import MultiInterception, is_multi_optimizer
from keras_clip._seam.single_optimizer import SingleInterception
from keras_clip.types import BoundFunction, ClipFunction, Gradient, Optimizer, Variable


class Interception(Protocol):
    """An optimizer whose gradients pass through a clip function on their way."""

    def apply(self, gradients: list[Gradient], variables: list[Variable] | None) -> None:
        """Run the optimizer's own `apply`, clipping in the midst of it."""


def intercept(
    optimizer: Optimizer, clip: ClipFunction, bounds: BoundFunction | None = None
) -> Interception:
    """Have `clip` called on the gradients that `optimizer`, which is built, is about to use.

    And have its variables projected to their `bounds` when it has used them.
    """
    clip = _without_gradients(clip)
    if is_multi_optimizer(optimizer):
        return MultiInterception(optimizer, clip, bounds)
    return SingleInterception(optimizer, clip, bounds)


def _without_gradients(clip: ClipFunction) -> ClipFunction:
    """Have no backend record what a clipper computes, as Keras has none record an update."""

    def run(gradients: list[Gradient], variables: list[Variable]) -> list[Gradient]:
        with backend.no_gradients():
            # Users of `apply` may pass NumPy arrays; Keras takes them, too.
            return clip([backend.as_gradient(gradient) for gradient in gradients], variables)

    return run
