"""Models to train for a few steps, and batches of random data for them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks import transformer
from benchmarks.gradient_sets import demo_model

Batches = list[tuple[np.ndarray, np.ndarray]]


class StepModel(NamedTuple):
    """A model and its data.

    Attributes:
        make: returns the model, which ends in logits.
        batches: returns a number of batches of inputs and classes.
    """

    make: Callable[[], Any]
    batches: Callable[[int], Batches]


def _dense(layers: int, width: int) -> Any:
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(width, activation="relu") for _ in range(layers - 1)]
    return keras.Sequential([keras.Input((width,)), *hidden, keras.layers.Dense(width)])


def _random(shape: tuple[int, ...], classes: int, rows: int, count: int) -> Batches:
    generator = np.random.default_rng(0)
    return [
        (
            generator.standard_normal((rows, *shape), dtype="float32"),
            generator.integers(0, classes, size=rows, dtype="int32"),
        )
        for _ in range(count)
    ]


def text_model(size: transformer.Size) -> StepModel:
    return StepModel(partial(transformer.make_model, size), partial(transformer.make_batches, size))


def _dense_model(layers: int, width: int, rows: int) -> StepModel:
    data = partial(_random, (width,), width, rows)
    return StepModel(partial(_dense, layers, width), data)


_TEXT = transformer.Size(5, 512, 8, vocabulary=8192, length=64, sequences=2)
_DEMO = StepModel(demo_model, partial(_random, (64, 1), 10, 64))

# Dense layers of 2048 x 2048 with small batches, so that the clip is not lost in the noise;
# 150 kernels of 82 x 82 and as many biases, a million parameters.
MODELS = {
    "transformer25M": text_model(_TEXT),
    "dense21M": _dense_model(5, 2048, rows=16),
    "variables300": _dense_model(150, 82, rows=32),
    "demo": _DEMO,
}
QUICK_MODELS = {
    "transformer25M": text_model(transformer.QUICK),
    "dense21M": _dense_model(3, 256, rows=32),
    "variables300": _dense_model(20, 16, rows=8),
    "demo": _DEMO,
}
