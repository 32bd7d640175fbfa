"""Dense layers that know digits learn rotated digits, white on black."""

from functools import cache
from typing import Any

import keras
import numpy as np

from benchmarks.tasks import dense_digits
from benchmarks.tasks.digits import BATCH_SIZE, FAILURE, digits
from benchmarks.tasks.task import Data, Task, cross_entropy


def make() -> Task:
    _trained_weights()  # before any seed of a run is set
    return Task(
        title="fine-tuning of dense layers on turned digits",
        data=_turned_digits(),
        make_model=trained_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=FAILURE,
        batch_size=BATCH_SIZE,
        steps=220,
        good_rates={"sgd": 0.03, "adam": 0.001, "lion": 0.0001},
    )


def _turned_digits() -> Data:
    found = digits(8, 8)

    def turned(images: np.ndarray) -> np.ndarray:
        inverse: np.ndarray = 1.0 - np.rot90(images, axes=(1, 2)).reshape(-1, 64)
        return inverse

    return Data(
        turned(found.inputs), found.targets, turned(found.held_out_inputs), found.held_out_targets
    )


def trained_model() -> Any:
    """Return a model that reads upright digits; the same for every seed."""
    model = dense_digits.make_model()
    model.set_weights(_trained_weights())
    return model


@cache
def _trained_weights() -> list[np.ndarray]:
    keras.utils.set_random_seed(0)
    model = dense_digits.make_model()
    found = digits(64)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(found.inputs, found.targets, batch_size=BATCH_SIZE, epochs=15, verbose=0)
    weights: list[np.ndarray] = model.get_weights()
    return weights
