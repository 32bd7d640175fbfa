"""A small transformer predicts the next character of Python's own help texts."""

from pydoc_data import topics
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.tasks.layers import Position, transformer_block
from benchmarks.tasks.task import Data, Task, cross_entropy

LENGTH, WIDTH, HEADS, BLOCKS = 48, 48, 4, 2
STRIDE = 12  # between the training windows
HELD_OUT = 128


def make() -> Task:
    data, characters = _data()
    return Task(
        title="character model, transformer",
        data=data,
        make_model=lambda: make_model(characters),
        loss=cross_entropy,
        metric="loss",
        failure=_entropy(data.targets),
        batch_size=16,
        steps=500,
        good_rates={"sgd": 0.1, "adam": 0.003, "lion": 0.0003},
        lanes=256,
    )


def _data() -> tuple[Data, int]:
    """Return windows of the text and the vocabulary; the last tenth of the windows is held out."""
    text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    known = sorted(set(text))
    codes = np.searchsorted(known, list(text)).astype("int32")
    split = int(0.9 * len(codes))
    learned = _windows(codes[:split])[::STRIDE]
    held_out = _windows(codes[split:])
    held_out = held_out[:: len(held_out) // HELD_OUT][:HELD_OUT]
    return Data(learned[:, :-1], learned[:, 1:], held_out[:, :-1], held_out[:, 1:]), len(known)


def _windows(codes: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(codes, LENGTH + 1)


def _entropy(targets: np.ndarray) -> float:
    """Return the loss of a model that knows only the frequency of each character."""
    frequency = np.bincount(targets.ravel()) / targets.size
    frequency = frequency[frequency > 0]
    return float(-np.sum(frequency * np.log(frequency)))


def make_model(characters: int) -> Any:
    text = keras.Input((LENGTH,), dtype="int32")
    hidden = Position()(layers.Embedding(characters, WIDTH)(text))
    for _ in range(BLOCKS):
        hidden = transformer_block(hidden, WIDTH, HEADS, is_causal=True)
    return keras.Model(text, layers.Dense(characters)(layers.LayerNormalization()(hidden)))
