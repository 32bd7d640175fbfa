"""The steps of an update by the wrapped optimizer, which may be a MultiOptimizer."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from keras_clip._seam import backend, keras_private
from keras_clip._seam.multi_optimizer import built_members, is_multi_optimizer
from keras_clip._seam.whole_gradients import (
    for_micro_batches,
    for_whole_gradients,
    has_own_apply,
    sharing_state,
)
from keras_clip.types import Gradient, Gradients, Optimizer, Tensor, Variable

AfterRules = Callable[[Sequence[Variable], Tensor], None]
"""Called with all trained variables and the number of earlier updates."""


class Batch(NamedTuple):
    """Gradients of one batch, or their averages over several.

    Attributes:
        gradients: gradients of trained variables, without None.
        variables: the variables of `gradients`.
        assigned: new values of variables that Keras overwrites, such as float8 scales.
        overwritten: the variables of `assigned`.
    """

    gradients: list[Gradient]
    variables: list[Variable]
    assigned: list[Tensor]
    overwritten: list[Variable]

    def tensors(self) -> tuple[list[Gradient], list[Tensor]]:
        """Return the parts that a branch needs as arguments."""
        return self.gradients, self.assigned

    def holding(self, gradients: Gradients, assigned: Sequence[Tensor]) -> "Batch":
        """Return a batch of the same variables with these tensors."""
        return Batch(list(gradients), self.variables, list(assigned), self.overwritten)


class InnerOptimizer:
    """Runs single steps of an update of a built optimizer.

    A MultiOptimizer is handled member by member, so one clip precedes the updates of all.

    Args:
        optimizer: the wrapped optimizer, built.

    Raises:
        ImportError: this Keras lacks a name that is needed.
        ValueError: members of a MultiOptimizer accumulate over different numbers of batches.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        if is_multi_optimizer(optimizer):
            keras_private.check_multi_optimizer_names(optimizer)
        self._members = built_members(optimizer) or [optimizer]
        self.steps = _common_accumulation(self._members)
        self.accumulates = bool(self._members[0].gradient_accumulation_steps)
        if self.accumulates:
            for member in self._members:
                keras_private.check_accumulation_names(member)
                _check_moving_average(member)
        self._updating = [for_whole_gradients(type(member)) for member in self._members]
        self._counting = [for_micro_batches(cls) for cls in self._updating]

    def is_micro_batch(self) -> Tensor:
        """Whether the next batch is accumulated without an update."""
        return ops.logical_not((self._optimizer._iterations + 1) % self.steps == 0)

    def updates(self) -> Tensor:
        """Return the number of updates applied so far."""
        batches = ops.convert_to_tensor(self._optimizer._iterations)
        return ops.floor_divide(batches, self.steps) if self.accumulates else batches

    def variables(self) -> list[Variable]:
        """Return all variables that an update may change, each once."""
        return keras_private.all_variables(self._optimizer)

    def trained_variables(self) -> list[Variable]:
        """Return the variables that the update rules of all members change."""
        return [v for member in self._members for v in keras_private.trained_variables(member)]

    def known_variables(self, batch: Batch) -> list[Variable]:
        """Return the Keras variables of the batch, also for native variables of the backend."""
        return keras_private.keras_variables(self._optimizer, batch.variables)

    def batch(self, gradients: Gradients, variables: Sequence[Variable]) -> Batch:
        """Return the gradients that are not None, as tensors, without their loss scale."""
        pairs = keras_private.present_pairs(self._optimizer, gradients, variables)
        overwritten = [p for p in pairs if keras_private.is_overwritten_by_gradient(p[1])]
        trained = [p for p in pairs if not keras_private.is_overwritten_by_gradient(p[1])]
        tensors = [backend.as_gradient(gradient) for gradient, _ in trained]
        scale = self._members[0].loss_scale_factor
        if scale is not None:
            tensors = [backend.map_values(t, lambda values: values / scale) for t in tensors]
        return Batch(
            tensors,
            [variable for _, variable in trained],
            [value for value, _ in overwritten],
            [variable for _, variable in overwritten],
        )

    def reduced(self, batch: Batch) -> Batch:
        """Return the batch with its gradients summed over replicas, by Keras's own method."""
        all_reduce = getattr(self._members[0], "_all_reduce_sum_gradients", None)
        gradients = backend.all_reduce(all_reduce, batch.gradients, batch.variables)
        return batch.holding(gradients, batch.assigned)

    def averages(self, batch: Batch) -> Batch:
        """Return the averages over all batches of an update, including this last one."""
        if not self.accumulates:
            return batch
        pairs = zip(batch.gradients, self._sums(batch.variables), strict=True)
        assigned = zip(batch.assigned, self._sums(batch.overwritten), strict=True)
        return batch.holding(
            [(gradient + accumulated) / self.steps for gradient, accumulated in pairs],
            [ops.maximum(value, accumulated) for value, accumulated in assigned],
        )

    def accumulate(self, batch: Batch) -> None:
        """Add a batch to the sums, and do Keras's other steps of a micro-batch."""
        for value, largest in zip(batch.assigned, self._sums(batch.overwritten), strict=True):
            largest.assign(ops.maximum(value, largest))

        def add(
            member: Optimizer, rule: Any, gradients: Gradients, variables: Sequence[Variable]
        ) -> None:
            del rule
            member._backend_increment_gradient_accumulators(gradients, self._sums(variables))

        summed = Batch(batch.gradients, batch.variables, [], [])
        self._apply(self._counting, summed, add, lambda: None)

    def update(self, batch: Batch, after_rules: AfterRules) -> None:
        """Run the optimizer's own `apply` on a batch.

        `after_rules` comes after the update rules of all members, and before Keras averages any
        variable or applies a constraint.
        """
        step, trained = self.updates(), self.trained_variables()
        self._apply(self._updating, batch, _rule_itself, lambda: after_rules(trained, step))
        if self.accumulates:
            self._forget()

    def drop(self) -> None:
        """Drop the update with all its batches, and leave no trace."""
        if not self.accumulates:
            return
        for optimizer in {id(o): o for o in (self._optimizer, *self._members)}.values():
            optimizer._iterations.assign(optimizer._iterations + (1 - self.steps))
        self._forget()

    def _forget(self) -> None:
        for member in self._members:
            keras_private.reset_accumulators(member)

    def _sums(self, variables: Sequence[Variable]) -> list[Variable]:
        return [keras_private.accumulator(self._member(v), v) for v in variables]

    def _apply(
        self,
        classes: Sequence[type],
        batch: Batch,
        update: Callable[..., None],
        after_rules: Callable[[], None],
    ) -> None:
        """Run Keras's `apply` of each member on its part, with `update` in place of its rule."""
        self._apply_from(0, classes, batch, update, after_rules)
        if is_multi_optimizer(self._optimizer):
            self._optimizer._iterations.assign_add(1)

    # A method: a nested function that calls itself keeps the weights until a garbage collection.
    def _apply_from(
        self,
        position: int,
        classes: Sequence[type],
        batch: Batch,
        update: Callable[..., None],
        after_rules: Callable[[], None],
    ) -> None:
        """Nest the members: each runs the next one's `apply` right after its own rule."""
        if position == len(self._members):
            after_rules()
            return
        member = self._members[position]
        gradients, variables = self._part(batch, member)
        # Otherwise Keras may not reach its update step.
        comes_to_rule = any(self._member(variable) is member for variable in batch.variables)
        nests = comes_to_rule and not has_own_apply(member)
        others = partial(self._apply_from, position + 1, classes, batch, update, after_rules)

        def rule_and_rest(*arguments: Any) -> None:
            update(member, *arguments)
            if nests:
                others()

        sharing_state(classes[position], member, rule_and_rest).apply(gradients, variables)
        if not nests:
            others()

    def _part(self, batch: Batch, member: Optimizer) -> tuple[list[Any], list[Variable]]:
        """Return the values and variables for the `apply` of `member`."""
        values = [*batch.gradients, *batch.assigned]
        variables = [*batch.variables, *batch.overwritten]
        own = [place for place, v in enumerate(variables) if self._member(v) is member]
        return [values[place] for place in own], [variables[place] for place in own]

    def _member(self, variable: Variable) -> Optimizer:
        return keras_private.member_of(self._optimizer, variable)


def _rule_itself(
    member: Optimizer, rule: Any, gradients: Gradients, variables: Sequence[Variable]
) -> None:
    del member
    rule(gradients, variables)


def _common_accumulation(members: list[Optimizer]) -> int:
    steps = [member.gradient_accumulation_steps or 1 for member in members]
    if len(set(steps)) > 1:
        raise ValueError(
            "The members of a MultiOptimizer inside ClippedOptimizer must update together to "
            f"have one norm. Received gradient_accumulation_steps={steps}. Give all members "
            "the same number, or wrap each member in a ClippedOptimizer of its own."
        )
    return steps[0]


def _check_moving_average(optimizer: Optimizer) -> None:
    overwrites = optimizer.use_ema and optimizer.ema_overwrite_frequency
    if overwrites and backend.decides_across_replicas():
        raise ValueError(
            "Keras cannot overwrite variables with their moving average during training under "
            "this distribution strategy. Leave ema_overwrite_frequency out: the averages are "
            "taken over at the end of fit, or by the callback keras.callbacks.SwapEMAWeights. "
            f"Received: ema_overwrite_frequency={optimizer.ema_overwrite_frequency!r}."
        )
