"""A clip computed before the wrapped optimizer's `apply`, and put in its place there.

Two cases need to know before anything is touched. The members of a MultiOptimizer run their
own `apply`, one after another, so that no member's update sees the others' gradients. And an
update that is skipped may not even have its weight decay, which Keras applies before the
update proper.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras_clip._seam import backend, keras_private
from keras_clip._seam.multi_optimizer import built_members, is_multi_optimizer
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


class Prepared(NamedTuple):
    """What is to replace the gradients of an update."""

    positions: list[int]
    clipped: list[Gradient]


class PrecomputedInterception:
    """Calls `clip` once on the gradients that all updates of `apply` are going to use.

    Args:
        optimizer: the wrapped optimizer, built; the members of a MultiOptimizer are known.
        clip: called with whole-batch gradients and their variables; returns what to use
            instead, and whether to skip the update, or None.
        bounds: what the variables are projected to after each update, or None.
        own_variables: what these functions read apart from the optimizer's variables.

    Raises:
        ValueError: members accumulate over different numbers of steps, so that they never
            update together and have no common norm.
    """

    RUNS_ON_MICRO_BATCHES = True

    def __init__(
        self,
        optimizer: Optimizer,
        clip: ClipFunction,
        bounds: BoundFunction | None,
        own_variables: Sequence[Variable],
    ) -> None:
        self._optimizer = optimizer
        self._clip = clip
        self._bounds = bounds
        self._own_variables = own_variables
        # tf.distribute runs each replica in a thread of its own.
        self._pending = threading.local()
        if is_multi_optimizer(optimizer):
            keras_private.check_multi_optimizer_names(optimizer)
        self._members = built_members(optimizer) or [optimizer]
        _check_common_accumulation(self._members)
        self._all_reduce = getattr(self._members[0], "_all_reduce_sum_gradients", None)
        for member in self._members:
            if member.gradient_accumulation_steps:
                keras_private.check_accumulation_names(member)
            self._intercept(member)

    def _intercept(self, member: Optimizer) -> None:
        update = member._backend_update_step

        def update_with_clipped(
            gradients: Gradients, variables: list[Variable], learning_rate: Tensor
        ) -> None:
            del gradients
            clipped = [self._pending.clipped[self._position(v)] for v in variables]
            self._pending.used = True
            update(clipped, variables, learning_rate)
            project(member, self._bounds)

        keras_private.replace_methods(
            member,
            _backend_update_step=update_with_clipped,
            _all_reduce_sum_gradients=keras_private.already_reduced,
        )

    def apply(self, gradients: Gradients, variables: list[Variable] | None) -> None:
        """Clip, then run the optimizer's `apply`, unless the update is to be skipped."""
        known = variables or keras_private.trainable_variables(self._optimizer)
        used = [
            (gradient, variable)
            for gradient, variable in zip(gradients, known, strict=True)
            if gradient is not None and not keras_private.is_overwritten_by_gradient(variable)
        ]
        if not used:
            self._optimizer.apply(gradients, variables)
            return
        prepared, skip = self._prepare(used)
        if skip is None:
            self._apply_prepared(prepared, list(gradients), known)
            return
        backend.run_unless(
            skip,
            lambda clipped, raw: self._apply_prepared(
                Prepared(prepared.positions, clipped), raw, known
            ),
            self._drop_update,
            (prepared.clipped, list(gradients)),
            [*keras_private.all_variables(self._optimizer), *self._own_variables],
        )

    def _prepare(self, used: list[tuple[Gradient, Variable]]) -> tuple[Prepared, Tensor | None]:
        variables = [variable for _, variable in used]
        averages = [
            keras_private.accumulated_average(self._member(variable), gradient, variable)
            for gradient, variable in used
        ]
        reduced = backend.all_reduce(self._all_reduce, averages, variables)
        known = keras_private.keras_variables(self._optimizer, variables)
        clipped, skip = self._clip(reduced, known)
        return Prepared([self._position(variable) for variable in variables], clipped), skip

    def _apply_prepared(
        self, prepared: Prepared, gradients: list[Gradient], variables: list[Variable]
    ) -> None:
        self._pending.clipped = dict(zip(prepared.positions, prepared.clipped, strict=True))
        self._pending.used = False
        try:
            self._optimizer.apply(gradients, variables)
            self._check_used()
        finally:
            # Kept any longer, a tensor of a trace would keep the whole trace alive.
            del self._pending.clipped

    def _check_used(self) -> None:
        # On a micro-batch in eager mode Keras does not update.
        accumulates = any(member.gradient_accumulation_steps for member in self._members)
        if not self._pending.used and not accumulates:
            raise RuntimeError(keras_private.never_came(self._optimizer))

    def _drop_update(self) -> None:
        """Leave everything as it was before the first micro-batch of the update."""
        steps = self._members[0].gradient_accumulation_steps or 1
        if steps == 1:
            return
        for optimizer in {id(o): o for o in (self._optimizer, *self._members)}.values():
            optimizer._iterations.assign(optimizer._iterations + (1 - steps))
        for member in self._members:
            member._backend_reset_gradient_accumulators()

    def _member(self, variable: Variable) -> Optimizer:
        optimizer = self._optimizer
        if not is_multi_optimizer(optimizer):
            return optimizer
        return optimizer.optimizers[optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]]

    def _position(self, variable: Variable) -> Any:
        return self._optimizer._get_variable_index(variable)


def _check_common_accumulation(members: list[Optimizer]) -> None:
    steps = [member.gradient_accumulation_steps or 1 for member in members]
    if len(set(steps)) > 1:
        raise ValueError(
            "The members of a MultiOptimizer inside ClippedOptimizer must update together to "
            f"have one norm. Received gradient_accumulation_steps={steps}. Give all members "
            "the same number, or wrap each member in a ClippedOptimizer of its own."
        )
