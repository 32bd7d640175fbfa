"""One training run of the demo, and the record of it."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_clip.demo.data import BATCH_SIZE, CLASSES, Digits
from keras_clip.demo.options import SGD_LEARNING_RATE, BadValue, Options
from keras_clip.optimizer import ClippedOptimizer

_MOMENTUM = 0.9
_UNITS = 64

CHANCE_LOSS = math.log(CLASSES)
"""The cross-entropy of giving every class the same probability."""


@dataclass(frozen=True)
class Epoch:
    """What is known at the end of an epoch.

    Attributes:
        number: from 1.
        loss: mean training loss over the epoch.
        accuracy: share of held-out digits read correctly after it.
        largest_norm: largest gradient norm of the epoch, before clipping.
    """

    number: int
    loss: float
    accuracy: float
    largest_norm: float


@dataclass(frozen=True)
class Run:
    """The record of one training run.

    Attributes:
        name: what to call it in the table and the figure.
        max_norm: the threshold; infinity if the run was only observed.
        losses: training loss of each step.
        norms: global gradient norm of each step, before clipping.
        epochs: one entry an epoch.
    """

    name: str
    max_norm: float
    losses: list[float]
    norms: list[float]
    epochs: list[Epoch]

    @property
    def final_loss(self) -> float:
        """Mean training loss over the last epoch."""
        return self.epochs[-1].loss

    @property
    def accuracy(self) -> float:
        """Share of held-out digits read correctly at the end."""
        return self.epochs[-1].accuracy

    @property
    def largest_norm(self) -> float:
        """Largest gradient norm of the run, NaN if any was NaN."""
        return largest(self.norms)

    @property
    def share_clipped(self) -> float:
        """Share of steps whose gradient was longer than `max_norm`."""
        return sum(norm > self.max_norm for norm in self.norms) / len(self.norms)

    @property
    def diverged(self) -> bool:
        """Whether the final loss is not finite, or no lower than that of guessing."""
        return not self.final_loss < CHANCE_LOSS


def largest(values: list[float]) -> float:
    """Return the maximum, or NaN if any of the values is; the built-in `max` may skip it."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def optimizer_factory(options: Options) -> tuple[Callable[[], Any], float]:
    """Return what makes the plain optimizer, and its learning rate.

    Raises:
        BadValue: Keras has no optimizer of that name.
    """
    known = _optimizers_by_name()
    if options.optimizer not in known:
        raise BadValue(
            f"argument --optimizer: expected one of {', '.join(sorted(known))}, "
            f"received {options.optimizer!r}."
        )
    optimizer = known[options.optimizer]
    rate = options.learning_rate
    if options.optimizer == "sgd":
        rate = SGD_LEARNING_RATE if rate is None else rate
        return lambda: optimizer(learning_rate=rate, momentum=_MOMENTUM), rate
    if rate is None:
        rate = float(_default_learning_rate(optimizer))
    return lambda: optimizer(learning_rate=rate), rate


def _optimizers_by_name() -> dict[str, Any]:
    """Return Keras's optimizers that work on their own: they have a default learning rate."""
    return {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if inspect.isclass(value)
        and issubclass(value, keras.optimizers.Optimizer)
        and isinstance(_default_learning_rate(value), float)
    }


def _default_learning_rate(optimizer: Any) -> Any:
    parameter = inspect.signature(optimizer).parameters.get("learning_rate")
    return None if parameter is None else parameter.default


def train(
    name: str,
    optimizer: Any,
    max_norm: float,
    digits: Digits,
    options: Options,
    on_epoch: Callable[[Epoch], None],
) -> Run:
    """Train the model once and return the record.

    Both runs of the demo go through here: with `max_norm=inf` the ClippedOptimizer only
    reports norms, and training is bit-identical to the plain optimizer's.

    Args:
        name: what to call the run.
        optimizer: a new Keras optimizer.
        max_norm: the threshold.
        digits: the data.
        options: number of epochs and seed.
        on_epoch: called at the end of each epoch.
    """
    # Also the order of the data: Keras shuffles with generators that this seeds.
    keras.utils.set_random_seed(options.seed)
    model = _model()
    model.compile(
        optimizer=ClippedOptimizer(optimizer, max_norm=max_norm),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    recorder = _Recorder(on_epoch)
    model.fit(
        digits.train_pixels,
        digits.train_labels,
        epochs=options.epochs,
        batch_size=BATCH_SIZE,
        validation_data=(digits.held_out_pixels, digits.held_out_labels),
        validation_batch_size=len(digits.held_out_labels),
        callbacks=[recorder],
        verbose=0,
    )
    return Run(name, max_norm, recorder.losses, recorder.norms, recorder.epochs)


def _model() -> Any:
    return keras.Sequential(
        [
            keras.Input((None, 1)),
            keras.layers.SimpleRNN(_UNITS),
            keras.layers.Dense(CLASSES),
        ]
    )


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes loss and gradient norm of every step.

    Args:
        on_epoch: called at the end of each epoch.
    """

    def __init__(self, on_epoch: Callable[[Epoch], None]) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.epochs: list[Epoch] = []
        self._on_epoch = on_epoch
        self._sum_before = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Through the model: on JAX this is what brings the optimizer's state up to date.
        self.norms.append(float(self.model.optimizer.grad_norm))
        # Keras reports the mean over the epoch so far; all batches are of one size.
        mean_so_far = float((logs or {})["loss"])
        total = mean_so_far * (batch + 1)
        self.losses.append(total - self._sum_before if batch else total)
        self._sum_before = total

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        steps = len(self.norms) // (epoch + 1)
        self.epochs.append(
            Epoch(
                number=epoch + 1,
                loss=float(logs["loss"]),
                accuracy=float(logs["val_accuracy"]),
                largest_norm=largest(self.norms[-steps:]),
            )
        )
        self._on_epoch(self.epochs[-1])
