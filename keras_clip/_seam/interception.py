"""Stepping in between the gradients and the update of whatever is wrapped."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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
    bounds: BoundFunction | None = None,
    skip: SkipFunction | None = None,
    own_variables: Sequence[Variable] = (),
) -> Interception:
    """Have `clip` called on the gradients that `optimizer`, which is built, is about to use.

    And have its variables projected to their `bounds` when it has used them. Where `skip`,
    called on the same gradients, says so, they are not used at all. `own_variables` are what
    the functions read apart from the optimizer's.
    """
    clip = _without_gradients(clip)
    if skip is not None or is_multi_optimizer(optimizer):
        skip = None if skip is None else _without_gradients(skip)
        return PrecomputedInterception(optimizer, clip, bounds, skip, own_variables)
    return SingleInterception(optimizer, clip, bounds)


Function = TypeVar("Function", bound=Callable[..., Any])


def _without_gradients(function: Function) -> Function:
    """Have no backend record what a clipper computes, as Keras has none record an update."""

    def run(gradients: list[Gradient], variables: list[Variable]) -> Any:
        with backend.no_gradients():
            # Users of `apply` may pass NumPy arrays; Keras takes them, too.
            return function([backend.as_gradient(gradient) for gradient in gradients], variables)

    return run  # type: ignore[return-value]
