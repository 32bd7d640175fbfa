"""Errors of compiled steps, raised at the end of the batch."""

from typing import Any

import keras

from keras_clip.monitoring.batch_keeper import BatchKeeper, check_keeper
from keras_clip.monitoring.clipped_optimizers import clipped_optimizers
from keras_clip.skipping.errors import NonFiniteGradientError, TooManySkipsError


class RaiseOnNonFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raise the errors of a compiled step at the end of the batch.

    A step that XLA has compiled cannot raise: `fit` on JAX, and on TensorFlow with
    `jit_compile=True`. With `ClippedOptimizer(nonfinite="raise")` or `max_consecutive_skips` it
    skips the update and records why. This callback calls `optimizer.raise_if_nonfinite()` after
    each batch, so the weights are those before the bad update. During a batch of `fit`, other
    steps leave the error to this callback: a `tf.function` would raise TensorFlow's
    `InvalidArgumentError` instead of the errors below. The host waits for the device once per
    batch.

    A note of the error names the epoch and the batch, counted from 0; with
    `steps_per_execution`, the first batch of the step.

    Args:
        save_batch: the `BatchKeeper` that the batches come from. It writes the batch of the error
            to a file, which the note names. Defaults to None, no file.

    Raises:
        TypeError: `save_batch` is something else.
        NonFiniteGradientError: with `nonfinite="raise"`; names the variables.
        TooManySkipsError: more than `max_consecutive_skips` updates in a row were skipped.
        ValueError: at the start of training, the model has no `ClippedOptimizer`, or the data
            does not come from `save_batch`.

    Example:
        >>> import keras, numpy as np
        >>> from keras_clip import ClippedOptimizer, NonFiniteGradientError, RaiseOnNonFinite
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="out")])
        >>> model.compile(optimizer=ClippedOptimizer("adam", nonfinite="raise"), loss="mse")
        >>> inputs, targets = np.ones((8, 4)), np.full((8, 1), np.nan)
        >>> try:
        ...     model.fit(inputs, targets, verbose=0, callbacks=[RaiseOnNonFinite()])
        ... except NonFiniteGradientError as error:
        ...     print("out/kernel" in str(error))
        True
    """

    def __init__(self, save_batch: BatchKeeper | None = None) -> None:
        super().__init__()
        self._keeper = check_keeper(save_batch)

    def set_model(self, model: Any) -> None:
        """Find the wrappers, and raise an error that is still due."""
        # When training begins, the step may already be compiled, with the warning.
        super().set_model(model)
        self._optimizers = clipped_optimizers(model.optimizer)
        for optimizer in self._optimizers:
            optimizer.raise_if_nonfinite()

    def on_train_begin(self, logs: Any = None) -> None:
        """Raise if there is no optimizer to watch."""
        del logs
        if self._keeper is not None:
            self._keeper.begin_fit(self)
        self._drawn_before = 0
        if not self._optimizers:
            raise ValueError(
                "RaiseOnNonFinite looks at a ClippedOptimizer, and the model was compiled with "
                f"{type(self.model.optimizer).__name__}. Compile it with "
                "keras_clip.ClippedOptimizer(...), or use keras.callbacks.TerminateOnNaN."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store where the epoch begins."""
        del logs
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Store the first batch of the step, and let the error wait for its end."""
        del logs
        self._batch = batch
        self._leave_errors(True)

    def _leave_errors(self, does: bool) -> None:
        for optimizer in self._optimizers:
            optimizer.leave_errors_to_callback(does)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count the batches of the epoch."""
        del epoch, logs
        # Known with `steps_per_epoch`; without, the data of a BatchKeeper ends here.
        self._drawn_before += self.params.get("steps") or 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raise if an error is due."""
        del batch, logs
        self._leave_errors(False)
        # On JAX, reading `self.model` brings the variables up to date.
        assert self.model is not None
        try:
            for optimizer in self._optimizers:
                optimizer.raise_if_nonfinite()
        except (NonFiniteGradientError, TooManySkipsError) as error:
            error.add_note(f"Epoch {self._epoch}, batch {self._batch}, counted from 0.")
            if self._keeper is not None:
                first = self._drawn_before + self._batch
                paths = self._keeper.save(first, first + self.model.steps_per_execution)
                error.add_note(f"Saved: {', '.join(map(str, paths))}")
            raise
