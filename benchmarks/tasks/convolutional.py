"""A convolutional network without normalization reads digits."""

from typing import Any

import keras
from keras import layers

from benchmarks.tasks.digits import BATCH_SIZE, CLASSES, FAILURE, STEPS, digits
from benchmarks.tasks.layers import Convolution
from benchmarks.tasks.task import Task, cross_entropy


def make() -> Task:
    return Task(
        title="convolutions without normalization, digits",
        data=digits(8, 8, 1),
        make_model=make_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=FAILURE,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        good_rates={"sgd": 0.03, "adam": 0.003, "lion": 0.0003},
        lanes=512,
    )


def make_model() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            Convolution(16, activation="relu"),
            Convolution(16, activation="relu"),
            Convolution(32, strides=2, activation="relu"),
            Convolution(32, activation="relu"),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
