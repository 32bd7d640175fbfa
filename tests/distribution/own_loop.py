"""A custom training loop, the same under every strategy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tests.distribution.batches import STEPS, as_lists, batch, norm_of
from tests.support.gradient_stream import values
from tests.support.models import make_model


class OwnLoop:
    """`strategy.run` around tape and `apply_gradients`; each replica gets a share of a batch."""

    def __init__(
        self, strategy: Any, make_optimizer: Callable[[], Any], shares: Sequence[slice]
    ) -> None:
        self._strategy = strategy
        self._shares = shares
        with strategy.scope():
            self.model = make_model()
            self.optimizer = make_optimizer()
            self.optimizer.build(self.model.trainable_variables)
        self.compiled = tf.function(self._step, reduce_retracing=True)

    def _step(self, *batch: Any) -> None:
        self._strategy.run(self._replica_step, args=batch)

    def _replica_step(self, inputs: Any, targets: Any, weights: Any) -> None:
        with tf.GradientTape() as tape:
            errors = tf.square(self.model(inputs) - targets)
            loss = tf.reduce_sum(weights * errors)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def shared(self, array: np.ndarray) -> Any:
        """Each replica's share of the rows of `array`."""

        def share(context: Any) -> Any:
            return tf.constant(array[self._shares[context.replica_id_in_sync_group]])

        return self._strategy.experimental_distribute_values_from_function(share)

    def take_step(
        self, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        """One update; without `weights` of the samples, for the mean of the whole batch."""
        if weights is None:
            weights = np.full(targets.shape, 1 / len(targets), "float32")
        self.compiled(self.shared(inputs), self.shared(targets), self.shared(weights))

    def run(self, first: int = 0, last: int = STEPS) -> dict[str, list[float]]:
        """Take steps; return the norms that clipping saw, and how far the weights moved."""
        norms, moves = [], []
        for step in range(first, last):
            before = values(self.model.trainable_variables)
            self.take_step(*batch(step))
            norms.append(float(self.optimizer.grad_norm.numpy()))
            moves.append(norm_of(values(self.model.trainable_variables), before))
        return {"norms": norms, "moves": moves}

    def result(self) -> dict[str, Any]:
        """Return weights and all optimizer variables, in numbers that JSON keeps exactly."""
        return {
            "weights": as_lists(values(self.model.trainable_variables)),
            "optimizer": as_lists(values(self.optimizer.variables)),
            "iterations": int(self.optimizer.iterations.numpy()),
        }


def one_device_run(make_optimizer: Callable[[], Any], steps: int = STEPS) -> dict[str, Any]:
    """The same run on the whole batch."""
    loop = OwnLoop(tf.distribute.get_strategy(), make_optimizer, [slice(None)])
    return {**loop.run(0, steps), **loop.result()}
