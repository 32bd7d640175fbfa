"""The contract of a task: data, model, loss, metric, failure, length."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import keras
import numpy as np

# One batch in a hundred is corrupted; its inputs are multiplied by the scale.
CORRUPTED_SHARE = 0.01
CORRUPTED_SCALE = 1e3


@dataclass(frozen=True)
class Data:
    """NumPy arrays to learn from, and others held out."""

    inputs: np.ndarray
    targets: np.ndarray
    held_out_inputs: np.ndarray
    held_out_targets: np.ndarray


@dataclass(frozen=True)
class Task:
    """A training run and its score.

    Attributes:
        title: one line for tables and figures.
        data: training data, and held-out data for the score.
        make_model: returns a built Keras model. Its weights depend on Keras's global seed.
        loss: of targets and outputs, a scalar tensor.
        metric: "accuracy", a share from 0 to 1, higher is better, or "loss", lower is better.
        failure: a run whose score is not better than this has failed.
        batch_size: examples of a training step.
        steps: training steps of a run.
        good_rates: for each optimizer a good learning rate; a sweep tries others around it.
        is_corrupted: whether 1% of the batches have wrong targets and, if inputs are numbers,
            inputs that are 1000 times too large.
        lanes: largest number of runs that one program trains at once.
        measure: of held-out targets and outputs, the score, if it is not a plain accuracy or loss.
        limits: more arguments of `ClippedOptimizer`, whatever the rule.
        is_loss_scaled: whether a `LossScaleOptimizer` scales the loss, as under mixed_float16.
    """

    title: str
    data: Data
    make_model: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    metric: Literal["accuracy", "loss"]
    failure: float
    batch_size: int
    steps: int
    good_rates: dict[str, float]
    is_corrupted: bool = False
    lanes: int = 1024
    measure: Callable[[Any, Any], Any] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    is_loss_scaled: bool = False

    def score(self, targets: Any, outputs: Any) -> Any:
        """Return the metric of outputs for held-out data, a scalar tensor."""
        if self.measure is not None:
            return self.measure(targets, outputs)
        if self.metric == "loss":
            return self.loss(targets, outputs)
        return jnp.mean((jnp.argmax(outputs, axis=-1) == targets).astype("float32"))

    def has_failed(self, score: float) -> bool:
        """Whether a score is NaN, infinite or no better than that of a failed run."""
        if not np.isfinite(score):
            return True
        return score <= self.failure if self.metric == "accuracy" else score >= self.failure

    def batches(self, seed: int, steps: int) -> np.ndarray:
        """Return the positions of the examples of each batch, shuffled for each epoch."""
        generator = np.random.default_rng(seed)
        count = len(self.data.inputs)
        per_epoch = count // self.batch_size
        orders = [generator.permutation(count) for _ in range(-(-steps // per_epoch))]
        whole = [order[: per_epoch * self.batch_size] for order in orders]
        batches = np.concatenate(whole).reshape(-1, self.batch_size)
        return batches[:steps].astype("int32")

    def corrupted_batches(self, seed: int, steps: int) -> np.ndarray:
        """Return for each step whether its batch is corrupted: one in a hundred, at random."""
        if not self.is_corrupted:
            return np.zeros(steps, bool)
        generator = np.random.default_rng([seed, 1])
        count = max(1, round(CORRUPTED_SHARE * steps))
        chosen = generator.choice(steps, size=count, replace=False)
        return np.isin(np.arange(steps), chosen)

    def batch(self, inputs: Any, targets: Any, is_corrupted: Any) -> tuple[Any, Any]:
        """Return a training batch, corrupted or not."""
        if not self.is_corrupted:
            return inputs, targets
        # The targets of another example, in reverse order along all axes.
        targets = jnp.where(is_corrupted, jnp.flip(targets), targets)
        if jnp.issubdtype(inputs.dtype, jnp.floating):
            inputs = inputs * jnp.where(is_corrupted, CORRUPTED_SCALE, 1.0)
        return inputs, targets


def cross_entropy(targets: Any, logits: Any) -> Any:
    """Return the mean cross-entropy of integer targets."""
    entropies = keras.ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    return keras.ops.mean(entropies)
