"""Numbers that an optimizer reports about its updates, and the error that it owes."""

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

        0 before the first update. Micro-batches of a gradient accumulation do not move it.
        Reading its value is the only moment at which the host waits for the device.
        """
        return self._once_built("_grad_norm", vars(self))

    @property
    def history(self) -> Record:
        """The latest `history_size` updates, as NumPy columns in order of time: a record.

        - `step`: number of updates before it, applied or skipped.
        - `grad_norm`: global norm before clipping.
        - `clip_threshold`: of the global norm; NaN for a clipper that limits something else.
        - `clip_scale`: norm after clipping over norm before, 1 where nothing was clipped, 0
          where the update was skipped.
        - `skipped`: whether the update was not applied.
        - `update_ratio`, with `max_update_ratio`: norm of the change over norm of the weights,
          before the limit; NaN where the update was skipped.
        - `update_scale`, with `max_update_ratio`: norm of the change after the limit over norm
          before.

        Micro-batches of a gradient accumulation are no updates. Reading it waits for the device.
        """
        return self._history.read()

    @property
    def history_size(self) -> int:
        """How many updates `history` goes back; fixed, as steps are compiled."""
        return self._history.size

    def record_variable_norms(self, every: int = 10, size: int = 1000) -> None:
        """Keep the norm of each variable's gradient, for `variable_norms`.

        To be called before the first step is compiled: one that is goes on without.
        `keras_clip.ClipMonitor` calls it for `per_variable=True`. What it keeps is not saved with
        the optimizer.

        Args:
            every: int of at least 1, keeps those of each so many updates. Those of the first
                update whose global norm is NaN or infinite are kept, too. Defaults to 10.
            size: int of at least 1, how many times are kept, the oldest making way. Defaults
                to 1000; takes 4 bytes for each variable and time.

        Raises:
            TypeError: an argument is no int.
            ValueError: an argument is below 1, or norms are recorded with other arguments.
        """
        self._variable_norms.start(every, size)
        if self.built:
            with backend.scope_of(self.grad_norm):
                known = keras_private.trainable_variables(self.inner_optimizer)
                self._variable_norms.build(self, known)

    @property
    def variable_norms(self) -> Record:
        """Norms by variable path, as NumPy columns in order of time, beside their `step`.

        Of gradients before clipping, 0 where a variable had none. Without columns of norms
        unless `record_variable_norms` was called.
        """
        return self._variable_norms.read()

    @property
    def skipped_steps(self) -> Variable:
        """Number of updates that were not applied at all: a scalar variable."""
        return self._once_built("skipped_steps", vars(self._skipping))

    @property
    def zeroed_steps(self) -> Variable:
        """Number of updates of which `nonfinite="zero"` set entries to 0: a scalar variable."""
        return self._once_built("zeroed_steps", vars(self._skipping))

    def _once_built(self, name: str, attributes: Mapping[str, Any]) -> Variable:
        if attributes.get(name) is None:
            raise AttributeError(
                f"{name.removeprefix('_')} is known once the optimizer is built: after "
                "optimizer.build(variables), or after the first step."
            )
        return attributes[name]

    def raise_if_nonfinite(self) -> None:
        """Raise the error of `nonfinite="raise"` or `max_consecutive_skips`, if one is due.

        For steps that cannot raise it themselves, being compiled by XLA or `torch.compile` or
        run on another device than the processor: there the updates are skipped until this is
        called. It waits for the device. In `fit`, `keras_clip.RaiseOnNonFinite` calls it at
        the end of each batch.

        Raises:
            NonFiniteGradientError: with `nonfinite="raise"`, names the variables.
            TooManySkipsError: more than `max_consecutive_skips` in a row were skipped.
        """
        self._skipping.watch(True)
        self._skipping.raise_if_due()
