"""The update, in order.

    reduce over replicas -> accumulate -> decide whether to skip -> clip
    -> unless skipped: decay, update rule, limit of the step, bounds on weights, averages,
       constraints, counter

The last line is the wrapped optimizer's own `apply`, plus the limit and the bounds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from keras import ops

from keras_clip._seam import backend
from keras_clip._seam.inner_optimizer import Batch, InnerOptimizer
from keras_clip.clippers import Clipped, Clipper, Update
from keras_clip.clippers.clipped import as_clipped
from keras_clip.records.history import History
from keras_clip.records.variable_norms import VariableNorms
from keras_clip.skipping.decision import Skipping
from keras_clip.types import Gradient, Gradients, Tensor, Variable
from keras_clip.weights.update_groups import UpdateGroups
from keras_clip.weights.weight_groups import WeightGroups


@dataclass(frozen=True)
class Applying:
    """Take the gradients of one batch through an update, in one order for all options.

    Attributes:
        inner: the wrapped optimizer.
        clipper: clips the gradients.
        skipping: decides whether the update is skipped.
        weights: bounds the variables.
        changes: limits the change of the variables in one update.
        grad_norm: variable of the global norm before clipping.
        history: stores a row of numbers for each update.
        variable_norms: stores the norm of each variable's gradient.
        own_variables: all variables of the wrapper, including those above.
        sum_repeated_rows: whether repeated rows of sparse gradients are summed before the update.
    """

    inner: InnerOptimizer
    clipper: Clipper
    skipping: Skipping
    weights: WeightGroups
    changes: UpdateGroups
    grad_norm: Variable
    history: History
    variable_norms: VariableNorms
    own_variables: Sequence[Variable]
    sum_repeated_rows: bool

    def apply(
        self, gradients: Gradients, variables: Sequence[Variable], losses: Sequence[Tensor]
    ) -> None:
        """Update the variables, or add the batch to an accumulation.

        `losses` holds the loss of the batch, or none if it is not read.
        """
        self.weights.check_patterns()
        self.changes.check_patterns()
        batch = self.inner.reduced(self.inner.batch(gradients, variables))
        if not self.inner.accumulates:
            self._update(batch, losses)
            return
        backend.accumulate_or_update(
            self.inner.is_micro_batch(),
            lambda losses, *tensors: self._update(batch.holding(*tensors), losses),
            lambda losses, *tensors: self._accumulate(batch.holding(*tensors), losses),
            (list(losses), *batch.tensors()),
            self._changed(),
        )

    def _accumulate(self, batch: Batch, losses: Sequence[Tensor]) -> None:
        self.inner.accumulate(batch)
        self.skipping.accumulate(losses)

    def _update(self, batch: Batch, losses: Sequence[Tensor]) -> None:
        batch = self.inner.averages(batch)
        if not batch.gradients:
            self._change(batch)
            return
        with backend.no_gradients(batch.gradients):
            clipped, skip = self._clip(batch, losses)
        clipped_batch = batch.holding(clipped, batch.assigned)
        if skip is None:
            self._change(clipped_batch)
            return
        backend.run_unless(
            skip,
            lambda clipped, assigned, _: self._change(batch.holding(clipped, assigned)),
            lambda _, assigned, gradients: self._drop(batch.holding(gradients, assigned)),
            (*clipped_batch.tensors(), batch.gradients),
            self._changed(),
        )

    def _clip(self, batch: Batch, losses: Sequence[Tensor]) -> tuple[list[Gradient], Tensor | None]:
        """Return the clipped gradients, and whether to skip the update, or None for never."""
        update = self.skipping.zeroed(
            Update(
                batch.gradients,
                self.inner.known_variables(batch),
                self.inner.updates(),
                may_overwrite=self.clipper.may_overwrite and not self.skipping.names_gradients,
                needs_norms=self.clipper.needs_norms,
            )
        )
        skip = self.skipping.decide(update, self.clipper, losses, self.inner.steps)
        # No state of a clipper would recover from a NaN or from an overflowed norm.
        learns = update.norm_is_in_range
        if skip is not None:
            learns = ops.logical_and(learns, ops.logical_not(skip))
        # Before the clip, which may overwrite the gradients.
        self.variable_norms.write(update, self.grad_norm.value, self.history.count)
        with _kept_where(learns, self.clipper.state):
            clipped = as_clipped(self.clipper.clip(update))
            self._record(update, clipped, skip)
        self.grad_norm.assign(update.global_norm)
        gradients = list(clipped.gradients)
        if self.sum_repeated_rows:
            gradients = [backend.with_rows_summed(gradient) for gradient in gradients]
        return gradients, skip

    def _record(self, update: Update, clipped: Clipped, skip: Tensor | None) -> None:
        if self.history.is_kept:
            threshold = update.evaluate(clipped.threshold)
            after = clipped.norm_after(update.global_norm)
            self.history.write(update.global_norm, threshold, after, skip)

    def overflowed(self) -> None:
        """Record and count a batch that a LossScaleOptimizer around the wrapper has skipped."""
        if self.history.is_kept:
            self.history.write_skip_of_unknown_norm()
            self.history.write_update_ratio(None, None)
        self.skipping.overflowed(self.history.first_row)

    def _drop(self, batch: Batch) -> None:
        self.inner.drop()
        self.history.write_update_ratio(None, None)
        variables = self.inner.known_variables(batch)
        self.skipping.dropped(batch.gradients, variables, self.history.first_row)

    def _change(self, batch: Batch) -> None:
        with backend.no_gradients(batch.gradients):
            before = self.changes.values()

        def after_rules(variables: Sequence[Variable], step: Tensor) -> None:
            with backend.no_gradients(batch.gradients):
                if before:
                    self._limit(before, step, is_recorded=bool(batch.gradients))
                self._bound(variables, step)

        self.inner.update(batch, after_rules)

    def _limit(self, before: list[Tensor], step: Tensor, *, is_recorded: bool) -> None:
        measured = self.changes.limit(before, step)
        # An update without gradients has no row.
        if is_recorded:
            self.history.write_update_ratio(measured.ratio, measured.scale)

    def _bound(self, variables: Sequence[Variable], step: Tensor) -> None:
        bounded = self.weights.bounds(variables, step)
        if bounded:
            backend.clamp(*map(list, zip(*bounded, strict=True)))

    def _changed(self) -> list[Variable]:
        return [*self.inner.variables(), *self.own_variables]


@contextmanager
def _kept_where(condition: Tensor, variables: Sequence[Variable]) -> Iterator[None]:
    """Undo the body's assignments to `variables` if the scalar `condition` is false."""
    if backend.is_known_to_hold(condition):
        yield
        return
    before = [ops.copy(variable) for variable in variables]
    yield
    for variable, old in zip(variables, before, strict=True):
        variable.assign(ops.where(condition, variable.value, old))
