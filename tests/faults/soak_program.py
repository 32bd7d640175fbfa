"""Two thousand steps of two replicas on partly bad data, in a separate process.

    KERAS_BACKEND=tensorflow python -m tests.faults.soak_program [STEPS]

Prints the results as JSON.
"""

import hashlib
import json
import resource
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_clip import AutoClip, ClippedOptimizer
from tests.support.mirrored import mirrored_strategy
from tests.support.models import make_model

REPLICAS, ROWS = 2, 4
FAULTS = ("none", "nan", "infinity", "huge", "zero")
# Four batches in five are good.
SHARES = (0.8, 0.05, 0.05, 0.05, 0.05)
SKIPPED = ("nan", "infinity")


def batches(steps: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The fault of each batch, and for each replica its inputs and targets."""
    generator = np.random.default_rng(11)
    made = []
    for _ in range(steps):
        inputs = generator.normal(size=(REPLICAS, ROWS, 4)).astype("float32")
        targets = np.tanh(inputs).sum(axis=-1, keepdims=True)
        fault = str(generator.choice(FAULTS, p=SHARES))
        spoil(fault, int(generator.integers(REPLICAS)), inputs, targets)
        made.append((fault, inputs, targets))
    return made


def spoil(fault: str, replica: int, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Put the fault on one replica."""
    if fault == "nan":
        inputs[replica, 0, 0] = np.nan
    elif fault == "infinity":
        targets[replica, 0] = np.inf
    elif fault == "huge":
        # Its square is out of range, but not its gradient: it is clipped and applied.
        targets[replica] = 1e30
    elif fault == "zero":
        inputs[replica], targets[replica] = 0.0, 0.0


class Run:
    """A model, its optimizer, and a compiled step of all replicas."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        with strategy.scope():
            self.model = make_model()
            self.optimizer = ClippedOptimizer(
                keras.optimizers.Adam(1e-3),
                clipper=[AutoClip(50.0, history_size=100), "clip_by_global_norm"],
                nonfinite="skip",
            )
            self.optimizer.build(self.model.trainable_variables)
        self._step = tf.function(self._replicas)

    def _replicas(self, inputs: Any, targets: Any) -> None:
        self.strategy.run(self._replica, args=(inputs, targets))

    def _replica(self, inputs: Any, targets: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.model(inputs) - targets) ** 2) / REPLICAS
        gradients = tape.gradient(loss, self.model.trainable_variables)
        pairs = zip(gradients, self.model.trainable_variables, strict=True)
        self.optimizer.apply_gradients(pairs)

    def step(self, *batch: np.ndarray) -> None:
        """Give each replica its part."""
        self._step(*(self._distributed(values) for values in batch))

    def _distributed(self, values: np.ndarray) -> Any:
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    def digest(self) -> str:
        """Return a digest of all bits of weights, moments, iterations and the clippers' state."""
        optimizer = self.optimizer
        variables = [*self.model.weights, *optimizer.inner_optimizer.variables]
        variables += optimizer.clipper.variables
        return hashlib.sha256(b"".join(v.numpy().tobytes() for v in variables)).hexdigest()

    def loss(self) -> float:
        """On data without faults."""
        inputs = np.random.default_rng(12).normal(size=(256, 4)).astype("float32")
        targets = np.tanh(inputs).sum(axis=-1, keepdims=True)
        return float(np.mean((self.model(inputs).numpy() - targets) ** 2))


def peak_memory() -> int:
    """Largest resident size so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def soak(steps: int) -> dict[str, Any]:
    """Train on all batches, and once more without the skipped ones."""
    run, only_good = (Run(strategy) for strategy in [mirrored_strategy(REPLICAS)] * 2)
    first_loss, warm = run.loss(), steps // 4
    data = batches(steps)
    for index, (_, *batch) in enumerate(data):
        run.step(*batch)
        if index == warm:
            memory = peak_memory()
    growth = peak_memory() - memory
    for fault, *batch in data:
        if fault not in SKIPPED:
            only_good.step(*batch)
    weights = run.model.get_weights()
    return {
        "steps": steps,
        "injected": {fault: sum(f == fault for f, *_ in data) for fault in FAULTS},
        "skipped_steps": int(run.optimizer.skipped_steps.numpy()),
        "iterations": int(run.optimizer.iterations.numpy()),
        "finite": all(bool(np.isfinite(weight).all()) for weight in weights),
        "loss": [first_loss, run.loss()],
        "memory_growth": growth,
        "identical_to_good_batches_only": run.digest() == only_good.digest(),
    }


if __name__ == "__main__":
    devices = [tf.config.LogicalDeviceConfiguration()] * REPLICAS
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    print(json.dumps(soak(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)))
