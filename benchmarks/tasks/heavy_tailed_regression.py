"""Regression on targets with noise of infinite variance; the score is the error without it."""

from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn.datasets import make_friedman1

from benchmarks.tasks.task import Data, Task

TRAINED_ON, HELD_OUT = 4096, 2048


def make() -> Task:
    return Task(
        title="regression, targets with Student-t noise",
        data=_data(),
        make_model=make_model,
        loss=_mean_squared_error,
        metric="loss",
        failure=1.0,  # the error of the mean
        batch_size=64,
        steps=640,
        good_rates={"sgd": 0.01, "adam": 0.003, "lion": 0.0003},
    )


def _data() -> Data:
    inputs, clean = make_friedman1(TRAINED_ON + HELD_OUT, n_features=10, random_state=0)
    clean = (clean - clean.mean()) / clean.std()
    # Between one and two degrees of freedom there is a mean, but no variance.
    noise = 0.3 * np.random.default_rng(0).standard_t(1.5, size=TRAINED_ON)
    inputs = (2.0 * inputs - 1.0).astype("float32")
    clean = clean.astype("float32")[:, None]
    targets = clean[:TRAINED_ON] + noise.astype("float32")[:, None]
    return Data(inputs[:TRAINED_ON], targets, inputs[TRAINED_ON:], clean[TRAINED_ON:])


def _mean_squared_error(targets: Any, outputs: Any) -> Any:
    return keras.ops.mean(keras.ops.square(targets - outputs))


def make_model() -> Any:
    return keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(1),
        ]
    )
