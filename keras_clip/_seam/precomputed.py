"""A clip computed before the wrapped optimizer's `apply`, and put in its place there.

Two cases need to know before anything is touched. The members of a MultiOptimizer run their
own `apply`, one after another, so that no member's update sees the others' gradients. And an
update that is skipped may not even have its weight decay, which Keras applies before the
update proper.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from keras_clip._seam import backend, keras_private, replicated_accumulation
from keras_clip._seam.multi_optimizer import built_members, is_multi_optimizer
from keras_clip._seam.projection import project
from keras_clip.types import (
    BoundFunction,
    ClipFunction,
    Gradient,
    Gradients,
    Optimizer,
    SkipFunction,
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
        on_skip: called in place of an update that is skipped, with its gradients and their
            variables, or None.
        own_variables: what these functions read or write apart from the optimizer's variables.

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
        on_skip: SkipFunction | None,
        own_variables: Sequence[Variable],
    ) -> None:
        self._optimizer = optimizer
        self._clip = clip
        self._on_skip = on_skip or _nothing
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
        apply_gradients = member._backend_apply_gradients
        update = member._backend_update_step

        def arrive(gradients: Gradients, variables: list[Variable]) -> None:
            if not replicated_accumulation.is_needed(member):
                apply_gradients(gradients, variables)
                return
            # Handed on as an argument: the branch runs in threads that know of nothing pending.
            replicated_accumulation.accumulate_or_update(
                member,
                gradients,
                variables,
                lambda latest, clipped: update_with(clipped, variables, member.learning_rate),
                (self._take_pending(variables),),
            )

        def update_with_pending(
            gradients: Gradients, variables: list[Variable], learning_rate: Tensor
        ) -> None:
            del gradients
            update_with(self._take_pending(variables), variables, learning_rate)

        def update_with(
            clipped: list[Gradient], variables: list[Variable], learning_rate: Tensor
        ) -> None:
            update(clipped, variables, learning_rate)
            project(member, self._bounds)

        keras_private.replace_methods(
            member,
            _backend_apply_gradients=arrive,
            _backend_update_step=update_with_pending,
            _backend_reset_gradient_accumulators=partial(keras_private.reset_accumulators, member),
            _all_reduce_sum_gradients=keras_private.already_reduced,
        )

    def _take_pending(self, variables: list[Variable]) -> list[Gradient]:
        self._pending.used = True
        clipped: dict[int, Gradient] = self._pending.clipped
        return [clipped[self._position(variable)] for variable in variables]

    def apply(self, gradients: Gradients, variables: list[Variable] | None) -> None:
        """Clip, then run the optimizer's `apply`, unless the update is to be skipped."""
        known = variables or keras_private.trainable_variables(self._optimizer)
        gradients = list(gradients)
        used = [
            index
            for index, (gradient, variable) in enumerate(zip(gradients, known, strict=True))
            if gradient is not None and not keras_private.is_overwritten_by_gradient(variable)
        ]
        if not used:
            self._optimizer.apply(gradients, variables)
            return
        used_variables = [known[index] for index in used]
        reduced = self._reduced([gradients[index] for index in used], used_variables)
        # The optimizer finds them reduced, too, so that what it accumulates is the sum.
        for index, gradient in zip(used, reduced, strict=True):
            gradients[index] = gradient
        self._clip_and_apply(reduced, used_variables, gradients, known)

    def _reduced(self, gradients: list[Gradient], variables: list[Variable]) -> list[Gradient]:
        reduced: list[Gradient] = backend.all_reduce(self._all_reduce, gradients, variables)
        return reduced

    def _clip_and_apply(
        self,
        reduced: list[Gradient],
        used: list[Variable],
        gradients: list[Gradient],
        variables: list[Variable],
    ) -> None:
        averages = [
            keras_private.accumulated_average(self._member(variable), gradient, variable)
            for gradient, variable in zip(reduced, used, strict=True)
        ]
        known = keras_private.keras_variables(self._optimizer, used)
        clipped, skip = self._clip(averages, known)
        positions = [self._position(variable) for variable in used]

        def apply(
            clipped: list[Gradient], gradients: list[Gradient], averages: list[Gradient]
        ) -> None:
            del averages
            self._apply_prepared(Prepared(positions, clipped), gradients, variables)

        def drop(
            clipped: list[Gradient], gradients: list[Gradient], averages: list[Gradient]
        ) -> None:
            del clipped, gradients
            self._drop_update()
            self._on_skip(averages, known)

        if skip is None:
            apply(clipped, gradients, averages)
            return
        changed = [*keras_private.all_variables(self._optimizer), *self._own_variables]
        backend.run_unless(skip, apply, drop, (clipped, gradients, averages), changed)

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
            keras_private.reset_accumulators(member)

    def _member(self, variable: Variable) -> Optimizer:
        optimizer = self._optimizer
        if not is_multi_optimizer(optimizer):
            return optimizer
        return optimizer.optimizers[optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]]

    def _position(self, variable: Variable) -> Any:
        return self._optimizer._get_variable_index(variable)


def _nothing(gradients: list[Gradient], variables: list[Variable]) -> None:
    """Leave it at dropping the update."""


def _check_common_accumulation(members: list[Optimizer]) -> None:
    steps = [member.gradient_accumulation_steps or 1 for member in members]
    if len(set(steps)) > 1:
        raise ValueError(
            "The members of a MultiOptimizer inside ClippedOptimizer must update together to "
            f"have one norm. Received gradient_accumulation_steps={steps}. Give all members "
            "the same number, or wrap each member in a ClippedOptimizer of its own."
        )
