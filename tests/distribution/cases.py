"""The optimizers that are compared between one device and many."""

from collections.abc import Callable
from typing import Any

import keras

from keras_clip import ClipByGlobalNorm, ClippedOptimizer
from tests.support.family import whole_family

# Between the norms of the runs: some steps are clipped, some are not.
MAX_NORM = 3.0
LEARNING_RATE = 0.05

# For the run in which one worker dies.
RESTART_STEPS = 12
STEPS_PER_CHECKPOINT = 5
DEATH_AT = 8


def sgd() -> Any:
    return ClippedOptimizer(keras.optimizers.SGD(LEARNING_RATE), max_norm=MAX_NORM)


def adam() -> Any:
    return ClippedOptimizer(keras.optimizers.Adam(0.02), max_norm=MAX_NORM)


def sgd_family() -> Any:
    return ClippedOptimizer(keras.optimizers.SGD(LEARNING_RATE), clipper=whole_family())


def adam_family() -> Any:
    return ClippedOptimizer(
        keras.optimizers.Adam(0.02), clipper=whole_family(), max_update_ratio=0.01, max_weight=0.9
    )


def skipping() -> Any:
    clipper = ClipByGlobalNorm(MAX_NORM)
    return ClippedOptimizer(keras.optimizers.Adam(0.02), clipper=clipper, skip_above=200.0)


OWN_LOOPS: dict[str, Callable[[], Any]] = {
    "sgd": sgd,
    "adam": adam,
    "sgd_family": sgd_family,
    "adam_family": adam_family,
}

# Three replicas are in the runs of `fit`.
REPLICAS = {"adam_family": 2, "sgd": 4, "adam": 8}

# In batches of 15 on three replicas: the last batch leaves one without a sample.
UNEVEN_SAMPLES = 47
