"""Training steps on TensorFlow: each is one `tf.function` that includes the clip."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_clip import ClippedOptimizer

PEER = "tf.clip_by_global_norm"


def device_name() -> str:
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return "cpu"
    return str(tf.config.experimental.get_device_details(devices[0])["device_name"])


def put(batch: Any) -> Any:
    return [tf.constant(array) for array in batch]


def wait(values: Any) -> None:
    for value in tf.nest.flatten(values):
        value.numpy()


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
        threshold = tf.constant(limit)

        @tf.function(autograph=False)
        def step(inputs: Any, targets: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = _cross_entropy(targets, self.model(inputs, training=True))
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            if by_peer:
                gradients, _ = tf.clip_by_global_norm(gradients, threshold)
            optimizer.apply(gradients, variables)
            return loss

        return lambda batch: step(*batch)


_cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
