"""The interface of a way to distribute training."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.matrix.problem import MOMENTUM, Batch, start

OnBatch = Callable[[Any], None]


class Strategy:
    """One device, trained by `fit`; the rest is for subclasses."""

    # For accumulation, skipping and resuming: `fit` if Keras has it.
    usual_way = "fit"
    momentum = MOMENTUM
    # Whether clippers may have state.
    keeps_state = True

    def scope(self) -> Any:
        """Where models are made."""
        return contextlib.nullcontext()

    def make_model(self) -> Any:
        """The network of `problem`, with its first weights."""
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, activation="tanh", name="hidden"),
                keras.layers.Dense(1, name="output"),
            ],
            name="network",
        )
        model.set_weights(start())
        return model

    def fit(self, model: Any, given: Sequence[Batch], on_batch: OnBatch) -> None:
        """Train by Keras's own loop."""
        own = [tuple(self.own_rows(array) for array in batch) for batch in given]
        inputs, targets = (np.concatenate(part) for part in zip(*own, strict=True))
        callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: on_batch(model)
        )
        options = {"batch_size": len(own[0][0]), "shuffle": False, "verbose": 0}
        model.fit(inputs, targets, callbacks=[callback], **options)

    def loop(self, model: Any, given: Sequence[Batch], on_batch: OnBatch) -> None:
        """Train by a custom loop."""
        raise NotImplementedError

    def own_rows(self, array: np.ndarray) -> np.ndarray:
        """Return the rows of a batch that `fit` gets in this process."""
        return array

    def resumed(self, model: Any, make: Callable[[], Any], folder: Path) -> Any:
        """Return the saved and loaded model; `make` makes an equal one."""
        del make
        model.save(folder / "model.keras")
        with self.scope():
            return keras.models.load_model(folder / "model.keras")

    def array(self, variable: Any) -> np.ndarray:
        """The whole value of a variable."""
        return np.array(variable.numpy())
