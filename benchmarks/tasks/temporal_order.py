"""Pascanu's temporal order problem: which symbol came first, and which second.

Reference: Hochreiter, Schmidhuber 1997; Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063. Here the
sequences are shorter, so that a run takes seconds.
"""

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.tasks.task import Data, Task, cross_entropy

LENGTH = 30
DISTRACTORS = 4
SYMBOLS = DISTRACTORS + 2
TRAINED_ON, HELD_OUT = 16_384, 1024


def make() -> Task:
    inputs, targets = _sequences(TRAINED_ON + HELD_OUT)
    return Task(
        title="temporal order, recurrent network",
        data=Data(
            inputs[:TRAINED_ON], targets[:TRAINED_ON], inputs[TRAINED_ON:], targets[TRAINED_ON:]
        ),
        make_model=make_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=0.35,  # guessing one of four classes is right in 25%
        batch_size=64,
        steps=1000,
        good_rates={"sgd": 0.03, "adam": 0.001, "lion": 0.0001},
    )


def _sequences(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences in one-hot form, and the class: 2 * first + second."""
    generator = np.random.default_rng(0)
    symbols = generator.integers(0, DISTRACTORS, size=(count, LENGTH))
    marks = generator.integers(0, 2, size=(count, 2))
    early = generator.integers(LENGTH // 10, 2 * LENGTH // 10, size=count)
    late = generator.integers(4 * LENGTH // 10, 5 * LENGTH // 10, size=count)
    for position, mark in zip((early, late), marks.T, strict=True):
        symbols[np.arange(count), position] = DISTRACTORS + mark
    one_hot = np.eye(SYMBOLS, dtype="float32")[symbols]
    return one_hot, (2 * marks[:, 0] + marks[:, 1]).astype("int32")


def make_model() -> Any:
    return keras.Sequential(
        [keras.Input((LENGTH, SYMBOLS)), layers.SimpleRNN(50), layers.Dense(4)],
    )
