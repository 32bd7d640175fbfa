"""Training steps in `fit`, on any backend: several batches a call."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import keras
import numpy as np

from keras_clip import ClippedOptimizer

# No other clip can come between the gradients and the optimizer of `fit`.
PEER = None


def device_name() -> str:
    backend = {"tensorflow": "graph", "jax": "compiled", "torch": "eager"}[keras.config.backend()]
    return str(import_module(f"benchmarks.{backend}_steps").device_name())


def put(batch: Any) -> Any:
    return batch


def wait(values: Any) -> None:
    """Do nothing: `fit` returns when it has read the loss."""
    del values


class Steps:
    """A training state for each variant.

    Args:
        model: the model to copy for each.
        example: a batch.
        optimizers: for each program a function that makes its optimizer.
    """

    def __init__(
        self, model: Any, example: Any, optimizers: dict[str, tuple[Callable[[], Any], bool]]
    ) -> None:
        self.model = model
        self.rows = len(example[0])
        self.optimizers = optimizers

    def make(self, name: str, limit: float) -> Callable[[list[Any]], Any]:
        """Return a function of batches that trains on them and returns the mean loss."""
        optimizer = self.optimizers[name][0]()
        if isinstance(optimizer, ClippedOptimizer) and optimizer.max_update_ratio is None:
            optimizer.max_norm = limit
        model = keras.models.clone_model(self.model)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss)

        def run(batches: list[Any]) -> list[float]:
            inputs, targets = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
            kept = model.fit(inputs, targets, batch_size=self.rows, shuffle=False, verbose=0)
            return kept.history["loss"]

        return run
