"""Three dense layers read digits: an easy task."""

from typing import Any

import keras
from keras import layers

from benchmarks.tasks.digits import BATCH_SIZE, CLASSES, FAILURE, STEPS, digits
from benchmarks.tasks.task import Task, cross_entropy


def make() -> Task:
    return Task(
        title="three dense layers, digits",
        data=digits(64),
        make_model=make_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=FAILURE,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        good_rates={"sgd": 0.1, "adam": 0.003, "lion": 0.0003},
    )


def make_model() -> Any:
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(128, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )
