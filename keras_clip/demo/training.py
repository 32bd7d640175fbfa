"""One training run of the demo, watched by `ClipMonitor`."""

import math
import sys
from dataclasses import dataclass
from typing import Any

import keras

from keras_clip.demo.data import BATCH_SIZE, CLASSES, Digits
from keras_clip.demo.options import MOMENTUM, OPTIMIZERS, SGD_LEARNING_RATE, Options
from keras_clip.monitoring.clip_monitor import ClipMonitor
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.records.history import Record

_UNITS = 64

CHANCE_LOSS = math.log(CLASSES)
"""The cross-entropy of equal probabilities for all classes."""


@dataclass(frozen=True)
class Run:
    """The results of one training run.

    Attributes:
        name: its name in the table and the figure.
        epochs: names of logs to a number for each epoch, as `model.fit` returns them.
        record: `ClipMonitor.record`, a row for each step.
    """

    name: str
    epochs: dict[str, list[float]]
    record: Record

    @property
    def final_loss(self) -> float:
        """Mean training loss over the last epoch."""
        return self.epochs["loss"][-1]

    @property
    def accuracy(self) -> float:
        """Share of held-out digits read correctly at the end."""
        return self.epochs["val_accuracy"][-1]

    @property
    def diverged(self) -> bool:
        """Whether the final loss is not finite, or not below the loss of guessing."""
        return not self.final_loss < CHANCE_LOSS


def make_optimizer(options: Options, times: float = 1.0) -> Any:
    """Return a new optimizer, not yet wrapped, at a multiple of its learning rate."""
    arguments: dict[str, float] = {}
    if options.optimizer == "sgd":
        arguments = {"learning_rate": SGD_LEARNING_RATE, "momentum": MOMENTUM}
    if options.learning_rate is not None:
        arguments["learning_rate"] = options.learning_rate
    optimizer = OPTIMIZERS[options.optimizer]
    usual = optimizer(**arguments).learning_rate  # type: ignore[attr-defined]
    return optimizer(**{**arguments, "learning_rate": times * float(usual)})


def train(name: str, optimizer: ClippedOptimizer, digits: Digits, options: Options) -> Run:
    """Train the model once, print a line for each epoch, and return the results.

    With `max_norm=inf`, the ClippedOptimizer only observes: training is bit-identical to that of
    the plain optimizer.
    """
    # This also seeds the generators of Keras's shuffling, so the order of the data is the same.
    keras.utils.set_random_seed(options.seed)
    model = keras.Sequential(
        [
            keras.Input((None, 1)),
            keras.layers.SimpleRNN(_UNITS),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    monitor = ClipMonitor()
    history = model.fit(
        digits.train_pixels,
        digits.train_labels,
        epochs=options.epochs,
        batch_size=BATCH_SIZE,
        validation_data=(digits.held_out_pixels, digits.held_out_labels),
        validation_batch_size=len(digits.held_out_labels),
        callbacks=[monitor, _Progress()],
        verbose=0,
    )
    return Run(name, history.history, monitor.record)


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Print a line for each epoch; in a terminal each line replaces the previous one."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        epochs = self.params["epochs"]
        print(
            f"  epoch {epoch + 1:{len(str(epochs))}}/{epochs}"
            f"  loss {short(logs['loss']):>7}"
            f"  validation accuracy {100 * logs['val_accuracy']:3.0f} %"
            f"  largest gradient norm {short(logs['grad_norm_max']):>7}",
            end="\r" if sys.stdout.isatty() and epoch + 1 < epochs else "\n",
            flush=True,
        )


def short(number: float) -> str:
    """Return about three digits, with an exponent only for very large or small numbers."""
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:#.3g}"
