"""Bounds on weights, right after the update of an optimizer."""

from keras import ops

from keras_clip._seam import backend, keras_private
from keras_clip.types import BoundFunction, Optimizer, Tensor


def project(optimizer: Optimizer, bounds: BoundFunction | None) -> None:
    """Project the variables of one optimizer, which has just run its update, to their bounds."""
    if bounds is None:
        return
    variables = [
        variable
        for variable in keras_private.trainable_variables(optimizer)
        if not keras_private.is_overwritten_by_gradient(variable)
    ]
    step = ops.convert_to_tensor(optimizer.iterations)
    with backend.no_gradients():
        bounded = [
            (variable, _on_updates_only(optimizer, bound))
            for variable, bound in bounds(variables, step)
        ]
        if bounded:
            backend.clamp(*map(list, zip(*bounded, strict=True)))


def _on_updates_only(optimizer: Optimizer, bound: Tensor) -> Tensor:
    # There Keras takes back what it did to the variables that have gradients; not to others.
    if not backend.UPDATES_ON_MICRO_STEPS:
        return bound
    is_update = keras_private.is_update_step(optimizer)
    if is_update is None:
        return bound
    return ops.where(is_update, bound, ops.full_like(bound, float("inf")))
