"""A convolutional network with batch normalization reads digits: its weights have no scale."""

from typing import Any

import keras
from keras import layers

from benchmarks.tasks.digits import BATCH_SIZE, CLASSES, FAILURE, STEPS, digits
from benchmarks.tasks.layers import Convolution
from benchmarks.tasks.task import Task, cross_entropy


def make() -> Task:
    return Task(
        title="convolutions with batch normalization, digits",
        data=digits(8, 8, 1),
        make_model=make_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=FAILURE,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        good_rates={"sgd": 0.1, "adam": 0.003, "lion": 0.0003},
        lanes=512,
    )


def make_model() -> Any:
    hidden: list[Any] = [keras.Input((8, 8, 1))]
    for filters, strides in ((16, 1), (32, 2), (32, 1)):
        # In a run this short, moving averages of 0.99 would lag behind.
        normalization = layers.BatchNormalization(momentum=0.9)
        hidden += [Convolution(filters, strides), normalization, layers.ReLU()]
    return keras.Sequential([*hidden, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)])
