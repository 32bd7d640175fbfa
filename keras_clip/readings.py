"""Numbers that an optimizer reports about its updates, and the error of a compiled step."""

from collections.abc import Mapping
from typing import Any

from keras_clip._seam import backend, keras_private
from keras_clip.records.history import History, Record
from keras_clip.records.variable_norms import VariableNorms
from keras_clip.skipping.decision import Skipping
from keras_clip.types import Optimizer, Variable


class Readings:
    """The readable side of `ClippedOptimizer`."""

    built: bool
    inner_optimizer: Optimizer
    _skipping: Skipping
    _history: History
    _variable_norms: VariableNorms

    @property
    def grad_norm(self) -> Variable:
        """Global norm before clipping of the latest update: a scalar variable on the device.

        0 before the first update. Micro-batches of a gradient accumulation do not change it.
        The host waits for the device only when you read the value.
        """
        return self._once_built("_grad_norm", vars(self))

    @property
    def history(self) -> Record:
        """The latest `history_size` updates, as NumPy columns in order of time: a record.

        - `step`: number of earlier updates, applied or skipped.
        - `grad_norm`: global norm before clipping.
        - `clip_threshold`: threshold of the global norm; NaN for a clipper without one.
        - `clip_scale`: norm after clipping divided by norm before: 1 if nothing was clipped, 0 if
          the update was skipped.
        - `skipped`: whether the update was not applied.
        - `rolled_back`: whether `keras_clip.RollBack` took the update back later.
        - `update_ratio`, with `max_update_ratio`: norm of the change divided by norm of the
          weights, before the limit; NaN if the update was skipped.
        - `update_scale`, with `max_update_ratio`: norm of the change after the limit divided by
          norm before.

        Micro-batches of a gradient accumulation have no row. Reading waits for the device.
        """
        return self._history.read()

    def leave_errors_to_callback(self, does: bool) -> None:
        """Let no step raise until this is undone: `RaiseOnNonFinite` does it around a batch."""
        self._skipping.leave_errors(does)

    def mark_rolled_back(self, first: int) -> None:
        """Mark the updates from step `first` of `history` on as taken back.

        `keras_clip.RollBack` calls it. Waits for the device.

        Args:
            first: int, step of the first update that was taken back.
        """
        self._history.mark_rolled_back(first)

    @property
    def recorded_updates(self) -> int:
        """Number of updates that `history` counted, also taken-back ones; waits for the device."""
        return self._history.updates()

    @property
    def history_size(self) -> int:
        """Number of updates that `history` holds at most; fixed, because steps are compiled."""
        return self._history.size

    def record_variable_norms(self, every: int = 10, size: int = 1000) -> None:
        """Record the norm of each variable's gradient in `variable_norms`.

        Call it before the first step is compiled: a compiled step continues without the norms.
        `keras_clip.ClipMonitor` calls it for `per_variable=True`. The norms are not saved with
        the optimizer.

        Args:
            every: int of at least 1, number of updates between two rows. The first update whose
                global norm is NaN or infinite has a row, too. Defaults to 10.
            size: int of at least 1, number of latest rows that are kept, 4 bytes for each
                variable and row. Defaults to 1000.

        Raises:
            TypeError: an argument is not an int.
            ValueError: an argument is below 1, or norms are already recorded with others.
        """
        self._variable_norms.start(every, size)
        if self.built:
            with backend.scope_of(self.grad_norm):
                known = keras_private.trainable_variables(self.inner_optimizer)
                self._variable_norms.build(self, known)

    @property
    def variable_norms(self) -> Record:
        """Norms of gradients before clipping, by variable path, as NumPy columns with `step`.

        Rows are in order of time. The norm is 0 if a variable had no gradient. Without
        `record_variable_norms` there are no norms.
        """
        return self._variable_norms.read()

    @property
    def skipped_steps(self) -> Variable:
        """Number of updates that were not applied: a scalar variable."""
        return self._once_built("skipped_steps", vars(self._skipping))

    @property
    def zeroed_steps(self) -> Variable:
        """Number of updates in which `nonfinite="zero"` set entries to 0: a scalar variable."""
        return self._once_built("zeroed_steps", vars(self._skipping))

    @property
    def record_variables(self) -> list[Variable]:
        """The variables of `history` and `variable_norms`, a part of `variables`."""
        return [*self._history.variables, *self._variable_norms.variables]

    def _once_built(self, name: str, attributes: Mapping[str, Any]) -> Variable:
        if attributes.get(name) is None:
            raise AttributeError(
                f"{name.removeprefix('_')} is known once the optimizer is built: after "
                "optimizer.build(variables), or after the first step."
            )
        return attributes[name]

    def raise_if_nonfinite(self) -> None:
        """Raise the error of `nonfinite="raise"` or `max_consecutive_skips`, if one is due.

        Some steps cannot raise: XLA or `torch.compile` has compiled them, or they run on an
        accelerator. They skip the update, and this method raises the error. It waits for the
        device. In `fit`, `keras_clip.RaiseOnNonFinite` calls it at the end of each batch.

        Raises:
            NonFiniteGradientError: with `nonfinite="raise"`; it names the variables.
            TooManySkipsError: more than `max_consecutive_skips` in a row were skipped.
        """
        self._skipping.watch(True)
        self._skipping.raise_if_due()
