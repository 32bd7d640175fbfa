"""Stepping in between the gradients and the update of whatever is wrapped."""

from collections.abc import Sequence
from typing import Protocol

from keras_clip._seam import backend
from keras_clip._seam.multi_optimizer import is_multi_optimizer
from keras_clip._seam.precomputed import PrecomputedInterception
from keras_clip._seam.single_optimizer import SingleInterception
from keras_clip.types import (
    BoundFunction,
    ClipFunction,
    Gradient,
    Optimizer,
    SkipFunction,
    Tensor,
    Variable,
)


class Interception(Protocol):
    """An optimizer whose gradients pass through a clip function on their way.

    `RUNS_ON_MICRO_BATCHES` says whether the clip runs on those that do not update, too.
    """

    RUNS_ON_MICRO_BATCHES: bool

    def apply(self, gradients: list[Gradient], variables: list[Variable] | None) -> None:
        """Run the optimizer's own `apply`, clipping in the midst of it."""


def intercept(
    optimizer: Optimizer,
    clip: ClipFunction,
    bounds: BoundFunction | None,
    *,
    on_skip: SkipFunction | None,
    own_variables: Sequence[Variable],
) -> Interception:
    """Have `clip` called on the gradients that `optimizer`, which is built, is about to use.

    And have its variables projected to their `bounds` when it has used them.

    Args:
        optimizer: the wrapped optimizer.
        clip: returns what to use instead and, if there is `on_skip`, whether to use anything.
        bounds: what the variables are projected to, or None.
        on_skip: called in place of an update that is skipped; None if none ever is.
        own_variables: what these functions read or write apart from the optimizer's variables.
    """
    clip = _without_gradients(clip)
    if on_skip is not None or is_multi_optimizer(optimizer):
        return PrecomputedInterception(optimizer, clip, bounds, on_skip, own_variables)
    return SingleInterception(optimizer, clip, bounds)


def _without_gradients(clip: ClipFunction) -> ClipFunction:
    """Have no backend record what a clipper computes, as Keras has none record an update."""

    def run(
        gradients: list[Gradient], variables: list[Variable]
    ) -> tuple[list[Gradient], Tensor | None]:
        with backend.no_gradients():
            # Users of `apply` may pass NumPy arrays; Keras takes them, too.
            return clip([backend.as_gradient(gradient) for gradient in gradients], variables)

    return run
