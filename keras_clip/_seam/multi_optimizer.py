"""One clip over all members of a `keras.optimizers.MultiOptimizer`.

Each member runs its own `apply`, one after another, so that no member's update sees the
others' gradients. The clip is therefore computed before the first of them, from the
gradients that each is going to use, and put in their place when the member gets there.
"""

import threading
from typing import Any

import keras

from keras_clip._seam import backend, keras_private
from keras_clip._seam.projection import project
from keras_clip.types import (
    BoundFunction,
    ClipFunction,
    Gradient,
    Gradients,
    Optimizer,
    Tensor,
    Variable,
)


def is_multi_optimizer(optimizer: Optimizer) -> bool:
    """Whether it is a `MultiOptimizer`, which Keras has from 3.14 on."""
    multi_optimizer = getattr(keras.optimizers, "MultiOptimizer", None)
    return multi_optimizer is not None and isinstance(optimizer, multi_optimizer)


class MultiInterception:
    """Calls `clip` once on the gradients of all members.

    Args:
        optimizer: a built `MultiOptimizer`, whose members are all known.
        clip: called with whole-batch gradients and their variables.
        bounds: what the variables are projected to after each update, or None.

    Raises:
        ValueError: members accumulate over different numbers of steps, so that they never
            update together and have no common norm.
    """

    def __init__(
        self, optimizer: Optimizer, clip: ClipFunction, bounds: BoundFunction | None
    ) -> None:
        self._optimizer = optimizer
        self._clip = clip
        self._bounds = bounds
        # tf.distribute runs each replica in a thread of its own.
        self._pending = threading.local()
        keras_private.check_multi_optimizer_names(optimizer)
        members = built_members(optimizer)
        _check_common_accumulation(members)
        self._all_reduce = getattr(members[0], "_all_reduce_sum_gradients", None)
        for member in members:
            self._intercept(member)

    def _intercept(self, member: Optimizer) -> None:
        update = member._backend_update_step

        def update_with_clipped(
            gradients: Gradients, variables: list[Variable], learning_rate: Tensor
        ) -> None:
            del gradients
            clipped = [self._pending.clipped[self._key(v)] for v in variables]
            update(clipped, variables, learning_rate)
            project(member, self._bounds)

        keras_private.replace_methods(
            member,
            _backend_update_step=update_with_clipped,
            _all_reduce_sum_gradients=keras_private.already_reduced,
        )

    def apply(self, gradients: Gradients, variables: list[Variable] | None) -> None:
        """Clip over all members, then run the optimizer's `apply`."""
        known = variables or self._optimizer._trainable_variables
        used = [
            (gradient, variable)
            for gradient, variable in zip(gradients, known, strict=True)
            if gradient is not None and not keras_private.is_overwritten_by_gradient(variable)
        ]
        self._pending.clipped = self._clipped(used) if used else {}
        try:
            self._optimizer.apply(gradients, variables)
        finally:
            # Kept any longer, a tensor of a trace would keep the whole trace alive.
            del self._pending.clipped

    def _clipped(self, used: list[tuple[Gradient, Variable]]) -> dict[Any, Gradient]:
        variables = [variable for _, variable in used]
        averages = [
            keras_private.accumulated_average(self._member(variable), gradient, variable)
            for gradient, variable in used
        ]
        reduced = backend.all_reduce(self._all_reduce, averages, variables)
        known = keras_private.keras_variables(self._optimizer, variables)
        clipped = self._clip(reduced, known)
        return {self._key(v): g for v, g in zip(variables, clipped, strict=True)}

    def _member(self, variable: Variable) -> Optimizer:
        optimizer = self._optimizer
        return optimizer.optimizers[optimizer._var_to_optimizer_idx[self._key(variable)]]

    def _key(self, variable: Variable) -> Any:
        return self._optimizer._var_key(variable)


def _check_common_accumulation(members: list[Optimizer]) -> None:
    steps = [member.gradient_accumulation_steps or 1 for member in members]
    if len(set(steps)) > 1:
        raise ValueError(
            "The members of a MultiOptimizer inside ClippedOptimizer must update together to "
            f"have one norm. Received gradient_accumulation_steps={steps}. Give all members "
            "the same number, or wrap each member in a ClippedOptimizer of its own."
        )


def members_of(optimizer: Optimizer) -> list[Optimizer]:
    """Return the members of a MultiOptimizer that are known by now; of others, none.

    One that chooses members by a function knows them once it is built.
    """
    return list(optimizer.optimizers) if is_multi_optimizer(optimizer) else []


def built_members(optimizer: Optimizer) -> list[Optimizer]:
    """Return the members that update a variable."""
    return [member for member in members_of(optimizer) if member.built]
