"""Training steps on torch: forward, backward, update, one call after another."""

from collections.abc import Callable
from typing import Any

import keras
import torch

from keras_clip import ClippedOptimizer

PEER = "torch.nn.utils.clip_grad_norm_"

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def put(batch: Any) -> Any:
    return [torch.as_tensor(array, device=_DEVICE) for array in batch]


def wait(values: Any) -> None:
    del values
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Steps:
    """One training state, which every step moves on.

    Args:
        model: the model to train.
        example: a batch.
        optimizers: for each program a function that makes its optimizer, and whether the peer
            clips the gradients before.
    """

    def __init__(
        self, model: Any, example: Any, optimizers: dict[str, tuple[Callable[[], Any], bool]]
    ) -> None:
        del example
        self.model = model
        self.optimizers = optimizers

    def make(self, name: str, limit: float) -> Callable[[Any], Any]:
        """Return a function of a batch that trains on it and returns the loss."""
        make, by_peer = self.optimizers[name]
        optimizer, variables = make(), self.model.trainable_variables
        optimizer.build(variables)
        if isinstance(optimizer, ClippedOptimizer) and optimizer.max_update_ratio is None:
            optimizer.max_norm = limit
        parameters = [variable.value for variable in variables]

        def step(batch: Any) -> Any:
            inputs, targets = batch
            self.model.zero_grad()
            loss = _cross_entropy(targets, self.model(inputs, training=True))
            loss.backward()
            if by_peer:
                torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
            gradients = [parameter.grad for parameter in parameters]
            with torch.no_grad():
                optimizer.apply(gradients, variables)
            return loss.detach()

        return step


_cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
