"""A small vision transformer reads digits in patches of 2 by 2 pixels."""

from typing import Any

import keras
from keras import layers

from benchmarks.tasks.digits import BATCH_SIZE, CLASSES, FAILURE, STEPS, digits
from benchmarks.tasks.layers import Position, transformer_block
from benchmarks.tasks.task import Data, Task, cross_entropy

WIDTH, HEADS, BLOCKS = 32, 4, 2


def make() -> Task:
    found = digits(8, 8)
    return Task(
        title="small vision transformer, digits",
        data=Data(
            _patches(found.inputs),
            found.targets,
            _patches(found.held_out_inputs),
            found.held_out_targets,
        ),
        make_model=make_model,
        loss=cross_entropy,
        metric="accuracy",
        failure=FAILURE,
        batch_size=BATCH_SIZE,
        steps=STEPS,
        good_rates={"sgd": 0.03, "adam": 0.003, "lion": 0.0003},
        lanes=512,
    )


def _patches(images: Any) -> Any:
    split = images.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4)
    return split.reshape(-1, 16, 4)


def make_model() -> Any:
    patches = keras.Input((16, 4))
    hidden = Position()(layers.Dense(WIDTH)(patches))
    for _ in range(BLOCKS):
        hidden = transformer_block(hidden, WIDTH, HEADS, is_causal=False)
    pooled = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(hidden))
    return keras.Model(patches, layers.Dense(CLASSES)(pooled))
