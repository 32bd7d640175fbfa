"""Decide which updates are skipped, count them, and raise errors."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.thresholds import HeldThreshold
from keras_clip.clippers import Clipper, Update
from keras_clip.layers.paths import path_of
from keras_clip.norms import floating_point
from keras_clip.skipping.errors import REASONS, MakeError, nonfinite_error, skips_error
from keras_clip.skipping.nonfinite import (
    MOST_NAMES,
    NonFinitePolicy,
    check_limit,
    check_policy,
    first_places,
    flags_of_nonfinite,
    zero_nonfinite_entries,
)
from keras_clip.skipping.outlier_state import OutlierState
from keras_clip.skipping.outliers import Outliers
from keras_clip.skipping.seen_loss import SeenLoss
from keras_clip.types import Gradient, Tensor, Variable


class Skipping:
    """Decides which updates are skipped, counts them, and raises if they are too many.

    Args:
        nonfinite: policy for gradients that are not finite.
        max_consecutive_skips: int, how many updates in a row may be skipped, or None.
        skip_above: multiple of the clipper's threshold above which an update is skipped, or
            `Outliers`.
    """

    def __init__(
        self,
        nonfinite: NonFinitePolicy,
        max_consecutive_skips: int | None,
        skip_above: HeldThreshold,
    ) -> None:
        check_policy(nonfinite)
        check_limit(max_consecutive_skips, skip_above.value is not None or nonfinite == "skip")
        self.nonfinite = nonfinite
        self.max_consecutive_skips = max_consecutive_skips
        self.skip_above = skip_above
        self._is_watched = False
        self._leaves_errors = False
        self._has_warned = False
        self.skipped_steps: Any = None  # made by `build`
        self.zeroed_steps: Any = None
        self.seen_loss = SeenLoss()
        self._outliers: OutlierState | None = None

    def build(self, wrapper: Any, variables: Sequence[Variable]) -> None:
        """Create the counters, as variables of `wrapper`.

        Every counter always exists, so that a run can resume under another policy.
        """
        self._paths = [path_of(variable) for variable in variables]
        self._positions = {id(variable): index for index, variable in enumerate(variables)}

        def add(shape: tuple[int, ...], name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype="int32", aggregation="only_first_replica", name=name
            )

        self.skipped_steps = add((), "skipped_steps")
        self.zeroed_steps = add((), "zeroed_steps")
        self._in_a_row = add((len(REASONS),), "skips_in_a_row")
        self._nonfinite_variables = add((MOST_NAMES,), "nonfinite_variables")
        self.skip_above.build(wrapper)
        if isinstance(self.skip_above.value, Outliers):
            dtype = floating_point.accumulation_dtype(variables)
            self._outliers = OutlierState(self.skip_above.value, wrapper, dtype)

    @property
    def keeps_state(self) -> bool:
        """Whether a decision depends on earlier updates."""
        return self.skip_above.value is not None or self.nonfinite != "propagate"

    @property
    def momentary(self) -> list[Variable]:
        """The variables that describe only the current run, and are not saved."""
        return [self._nonfinite_variables]

    @property
    def names_gradients(self) -> bool:
        """Whether `dropped` looks for gradients that are not finite."""
        return self.nonfinite == "raise" or self.max_consecutive_skips is not None

    def zeroed(self, update: Update) -> Update:
        """Return the update, with NaN and infinite entries set to 0 if the policy is "zero"."""
        if self.nonfinite != "zero":
            return update
        is_zeroed = ops.logical_not(ops.isfinite(update.global_norm))
        self.zeroed_steps.assign(self.zeroed_steps + ops.cast(is_zeroed, "int32"))
        return update.with_gradients(*zero_nonfinite_entries(update.gradients, update.global_norm))

    @property
    def reads_loss(self) -> bool:
        """Whether a decision depends on the loss of the step."""
        rule = self.skip_above.value
        return isinstance(rule, Outliers) and rule.reads_loss

    def accumulate(self, losses: Sequence[Tensor]) -> None:
        """Add the loss of a micro-batch, if losses are read."""
        if self._outliers is not None:
            self._outliers.accumulate(losses)

    def decide(
        self, update: Update, clipper: Clipper, losses: Sequence[Tensor], batches: int
    ) -> Tensor | None:
        """Return whether to skip the update, and count it; None if no update is ever skipped.

        Args:
            update: the update.
            clipper: its clipper.
            losses: the loss of its last batch, or none if losses are not read.
            batches: number of batches of an update.
        """
        leaves_out_nonfinite = self.nonfinite in ("skip", "raise")
        if self.skip_above.value is None and not leaves_out_nonfinite:
            return None
        skip = not_finite = ops.logical_not(ops.isfinite(update.global_norm))
        if self.skip_above.value is not None:
            skip = self._exceeds(update, clipper, losses, batches)
            if leaves_out_nonfinite:
                skip = ops.logical_or(skip, not_finite)
        self.skipped_steps.assign(self.skipped_steps + ops.cast(skip, "int32"))
        if self.names_gradients:
            self._count_in_a_row(skip, not_finite)
        return skip

    def _exceeds(
        self, update: Update, clipper: Clipper, losses: Sequence[Tensor], batches: int
    ) -> Tensor:
        if self._outliers is not None:
            return self._outliers.skips(update.global_norm, losses, batches)
        norm, threshold = clipper.running_threshold(update)
        limit = ops.cast(update.evaluate(self.skip_above.value), norm.dtype)
        above = norm > limit * ops.cast(threshold, norm.dtype)
        # TensorFlow's graph optimizer would turn `not (norm <= ...)` into `norm > ...`.
        return ops.logical_or(ops.isnan(norm), above)

    def _count_in_a_row(self, skip: Tensor, not_finite: Tensor) -> None:
        count = self._in_a_row.value
        flags = [
            ops.logical_and(skip, not_finite),
            ops.logical_and(skip, ops.logical_not(not_finite)),
            ops.zeros_like(skip),
        ]
        # An applied update ends the row, unless an error is due: a callback may raise it later.
        others = ops.where(self._is_due(count), count, ops.zeros_like(count))
        added = count + ops.cast(ops.stack(flags), "int32")
        self._in_a_row.assign(ops.where(skip, added, others))

    def _is_due(self, in_a_row: Tensor) -> Tensor:
        due = ops.zeros((), "bool")
        for is_due, _ in self._errors(in_a_row):
            due = ops.logical_or(due, is_due)
        return due

    def _errors(self, in_a_row: Tensor) -> list[tuple[Tensor, MakeError]]:
        """Return each error that the options allow, with whether it is due. At most one is."""
        not_finite = in_a_row[0] > 0
        errors: list[tuple[Tensor, MakeError]] = []
        if self.nonfinite == "raise":
            errors.append((not_finite, nonfinite_error))
        if self.max_consecutive_skips is not None:
            too_many = ops.sum(in_a_row) > self.max_consecutive_skips
            if errors:
                too_many = ops.logical_and(too_many, ops.logical_not(not_finite))
            errors.append((too_many, partial(skips_error, self.max_consecutive_skips)))
        return errors

    def dropped(
        self, gradients: Sequence[Gradient], variables: Sequence[Variable], row: Tensor | None
    ) -> None:
        """Store which gradients are not finite, and raise if that is possible here.

        `row` is a row of the record, or None. The record is written before an error is raised.
        """
        if not self.names_gradients:
            return
        flags = [ops.zeros((), "int32")] * len(self._paths)
        for flag, variable in zip(flags_of_nonfinite(gradients), variables, strict=True):
            flags[self._positions[id(variable)]] = flag
        places = first_places(flags)
        # Until an error is raised, keep the names of the first NaN.
        is_first = ops.logical_and(self._in_a_row.value[0] == 1, places[0] >= 0)
        named = ops.where(is_first, places, self._nonfinite_variables.value)
        self._nonfinite_variables.assign(named)
        self._raise_if_possible([] if row is None else [row])

    def overflowed(self, row: Tensor | None) -> None:
        """Count an update that a LossScaleOptimizer around the wrapper has skipped.

        `row` is as for `dropped`.
        """
        self.skipped_steps.assign(self.skipped_steps + 1)
        if self.max_consecutive_skips is not None:
            count = self._in_a_row.value
            self._in_a_row.assign(
                count + backend.constant(np.array([0, 0, 1], "int32"), like=count)
            )
            self._raise_if_possible([] if row is None else [row])

    def _raise_if_possible(self, after: Sequence[Tensor]) -> None:
        count = self._in_a_row.value
        fatal, errors, noted = self._is_due(count), self._errors(count), self._noted()
        # The error of a TensorFlow graph is hard to read; if a callback watches, it raises.
        if self._leaves_errors or not backend.can_raise(fatal, self._is_watched):
            self._warn_unless_watched()
            return
        # Each error is raised once, so training can continue.
        self._in_a_row.assign(ops.where(fatal, ops.zeros_like(count), count))
        after = [*after, self._in_a_row.value]
        for is_due, error in errors:
            backend.raise_where(is_due, error, (*REASONS, *self._paths), noted, after)

    def _noted(self) -> Tensor:
        """Return flags for the reasons and the variables that an error names."""
        reasons = self._in_a_row.value > 0
        places = backend.constant(np.arange(len(self._paths), dtype="int32"), like=reasons)
        named = ops.any(self._nonfinite_variables.value[:, None] == places[None, :], axis=0)
        named = ops.logical_and(named, reasons[0])
        return ops.cast(ops.concatenate([reasons, named]), "int32")

    def _warn_unless_watched(self) -> None:
        if self._has_warned or self._is_watched:
            return
        self._has_warned = True
        warnings.warn(
            "This step is compiled, and its compiler (XLA, torch.compile) or its device cannot "
            "raise. Updates are skipped, and fit raises the error when it ends. To stop at the "
            "batch, add callbacks=[keras_clip.RaiseOnNonFinite()]. In a loop of your own, call "
            "optimizer.raise_if_nonfinite() whenever the host may wait for the device.",
            stacklevel=2,
        )

    def watch(self, is_watched: bool) -> None:
        """Store whether `raise_if_due` will be called during the next steps."""
        self._is_watched = is_watched

    def leave_errors(self, does: bool) -> None:
        """Store whether no step raises now, because a callback will after the batch."""
        self._leaves_errors = does

    def raise_if_due(self) -> None:
        """Raise the error that a compiled step could not raise; waits for the device."""
        if self.skipped_steps is None or not self.names_gradients:
            return
        errors = self._errors(self._in_a_row.value)
        due = [error for is_due, error in errors if bool(ops.convert_to_numpy(is_due))]
        if not due:
            return
        flags = ops.convert_to_numpy(self._noted())
        self._in_a_row.assign(ops.zeros_like(self._in_a_row.value))
        names = (*REASONS, *self._paths)
        raise due[0]([name for name, flag in zip(names, flags, strict=True) if flag])
