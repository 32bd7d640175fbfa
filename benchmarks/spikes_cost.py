"""Time `fit` with `Outliers` that skip nothing, and with `RollBack`, against `max_norm` alone.

    KERAS_BACKEND=torch python -m benchmarks.spikes_cost

Four layers of 1024 x 1024, Adam, 200 batches of 32 a call, in turn; prints the medians and the
quartiles of the ratios within a turn.
"""

import argparse
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.interleaved import Variant, summary, time_in_turn
from keras_clip import ClippedOptimizer, Outliers, RollBack

WIDTH, ROWS, BATCHES = 1024, 32, 200


def variant(make_callbacks: Callable[[], list[Any]], **options: Any) -> Variant:
    """Return a variant that trains a model of its own."""
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((ROWS * BATCHES, WIDTH), dtype="float32")
    targets = generator.integers(0, WIDTH, size=ROWS * BATCHES, dtype="int32")
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(WIDTH, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden, keras.layers.Dense(WIDTH)])
    optimizer = ClippedOptimizer(keras.optimizers.Adam(1e-5), **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)

    def run(callbacks: list[Any]) -> Any:
        return model.fit(
            inputs, targets, batch_size=ROWS, shuffle=False, verbose=0, callbacks=callbacks
        )

    return Variant(lambda index: make_callbacks(), run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    variants = {
        "max_norm=1": variant(list),
        "max_norm=1 again": variant(list),
        "Outliers": variant(list, skip_above=Outliers()),
        "RollBack": variant(lambda: [RollBack()]),
    }
    times = time_in_turn(variants, arguments.seconds)
    for name, own in times.items():
        print(name, summary(own, {"max_norm=1": times["max_norm=1"]}), len(own), "turns")


if __name__ == "__main__":
    main()
