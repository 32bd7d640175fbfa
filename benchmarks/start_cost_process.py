"""One measurement of `start_cost`, alone in its process.

    python -m benchmarks.start_cost_process build keras_clip 3000

Prints seconds, or MiB.
"""

import json
import resource
import sys
import time
from typing import Any

import keras
import numpy as np

_LIMIT = 1e-3


def seconds_to_import(variant: str, size: Any) -> float:
    # Every program that trains has imported these already.
    keras.ops.zeros(())
    start = time.perf_counter()
    import keras_clip  # noqa: F401

    return time.perf_counter() - start


def make_optimizer(variant: str) -> Any:
    if variant.startswith("keras_clip"):
        from keras_clip import ClippedOptimizer

        limit = 1e9 if variant.endswith("nothing clipped") else _LIMIT
        return ClippedOptimizer(keras.optimizers.Adam(1e-5), limit)
    if variant == "Keras, global_clipnorm":
        return keras.optimizers.Adam(1e-5, global_clipnorm=_LIMIT)
    return keras.optimizers.Adam(1e-5)


def seconds_to_build(variant: str, size: int) -> float:
    variables = [keras.Variable(np.zeros((4, 4), "float32")) for _ in range(size)]
    make_optimizer(variant).build(variables[:1])  # imports, and the extra time of a first variable
    start = time.perf_counter()
    make_optimizer(variant).build(variables)
    return time.perf_counter() - start


def seconds_of_first_step(variant: str, size: int) -> float:
    layers = [keras.layers.Dense(8) for _ in range(size // 2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(optimizer=make_optimizer(variant), loss="mse")
    data = np.ones((4, 8), "float32")
    start = time.perf_counter()
    model.fit(data, data, verbose=0)
    return time.perf_counter() - start


def peak_size(variant: str, size: list[int]) -> float:
    inputs, outputs = size
    dense = keras.layers.Dense(outputs, use_bias=False)
    model = keras.Sequential([keras.Input((inputs,)), dense])
    model.compile(optimizer=make_optimizer(variant), loss="mse")
    for step in range(3):
        data = np.full((4, inputs), 1.0 + step, "float32")
        model.fit(data, data[:, :outputs], verbose=0)
    # Kibibytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


MEASURES = {
    "import": seconds_to_import,
    "build": seconds_to_build,
    "first step": seconds_of_first_step,
    "memory": peak_size,
}

if __name__ == "__main__":
    what, variant, size = sys.argv[1:]
    print(MEASURES[what](variant, json.loads(size)))
