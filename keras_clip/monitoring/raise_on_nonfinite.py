"""Errors of compiled steps, raised at the end of the batch."""

from typing import Any

import keras

from keras_clip.monitoring.clipped_optimizers import clipped_optimizers


class RaiseOnNonFinite(keras.callbacks.Callback):  # type: ignore[misc]
    """Raise the errors of a compiled step at the end of the batch.

    A step that XLA has compiled cannot raise: `fit` on JAX, and on TensorFlow with
    `jit_compile=True`. With `ClippedOptimizer(nonfinite="raise")` or `max_consecutive_skips` it
    skips the update and records why. This callback calls `optimizer.raise_if_nonfinite()` after
    each batch, so the weights are those before the bad update. In a `tf.function` that XLA does
    not compile, it replaces TensorFlow's `InvalidArgumentError` by the errors below. The host
    waits for the device once per batch.

    Raises:
        NonFiniteGradientError: with `nonfinite="raise"`; names the variables.
        TooManySkipsError: more than `max_consecutive_skips` updates in a row were skipped.
        ValueError: at the start of training, the model has no `ClippedOptimizer`.

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
        if not self._optimizers:
            raise ValueError(
                "RaiseOnNonFinite looks at a ClippedOptimizer, and the model was compiled with "
                f"{type(self.model.optimizer).__name__}. Compile it with "
                "keras_clip.ClippedOptimizer(...), or use keras.callbacks.TerminateOnNaN."
            )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raise if an error is due."""
        # On JAX, reading `self.model` brings the variables up to date.
        del batch, logs
        assert self.model is not None
        for optimizer in self._optimizers:
            optimizer.raise_if_nonfinite()
