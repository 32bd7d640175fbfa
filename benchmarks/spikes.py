"""Train on data with spikes: with each guard, and without.

    KERAS_BACKEND=torch python -m benchmarks.spikes --processes 2

1 % of the batches are corrupted: labels permuted, inputs 1,000 times too large. One stretch of 20
batches in a row is corrupted in the same way. Each seed trains on clean data, and on these data
with each guard. Writes a table to standard output and `spikes_<backend>.json` to
`benchmarks/results/`: final losses on all clean training data, and the skipped good updates.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.tasks.digits import digits
from keras_clip import ClippedOptimizer, Outliers, RollBack

RESULTS = Path(__file__).parent / "results"
BATCH = 32
STEPS = 2000
SEEDS = 10
# Before, `Outliers` knows too few norms and `RollBack` too few losses.
FIRST_BAD = 100
STRETCH = 20
GUARDS = ("no clip", "max_norm=1", "Outliers", "RollBack", "both")
CLOSE = 0.02


def corrupted(seed: int, steps: int) -> np.ndarray:
    """Return which batches are corrupted."""
    generator = np.random.default_rng(seed)
    bad = np.zeros(steps, bool)
    later = np.arange(FIRST_BAD, steps)
    bad[generator.choice(later, max(1, steps // 100), replace=False)] = True
    start = int(generator.integers(FIRST_BAD, steps - STRETCH))
    bad[start : start + STRETCH] = True
    return bad


def data(seed: int, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs and labels of all batches in order, and the clean training data."""
    generator = np.random.default_rng(seed + 1000)
    found = digits(64)
    images, labels = found.inputs, found.targets
    order = [generator.permutation(len(images)) for _ in range(len(bad) * BATCH // len(images) + 1)]
    chosen = np.concatenate(order)[: len(bad) * BATCH]
    inputs, targets = images[chosen].copy(), labels[chosen].copy()
    for batch in np.flatnonzero(bad):
        rows = slice(batch * BATCH, (batch + 1) * BATCH)
        inputs[rows] *= 1000.0
        targets[rows] = generator.permutation(targets[rows])
    return inputs, targets, images, labels


def train(seed: int, bad: np.ndarray, guard: str) -> dict[str, Any]:
    """Train one model, and return its final loss and what the guard did."""
    inputs, targets, images, labels = data(seed, bad)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
            keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(1e-3)),
        ]
    )
    optimizer = ClippedOptimizer(
        keras.optimizers.Adam(1e-3),
        max_norm=float("inf") if guard == "no clip" else 1.0,
        skip_above=Outliers() if guard in ("Outliers", "both") else None,
        history_size=len(bad),
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    roll_back = RollBack()
    callbacks = [roll_back] if guard in ("RollBack", "both") else []
    model.fit(inputs, targets, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
    skipped = optimizer.history["skipped"]
    loss = model.evaluate(images, labels, batch_size=len(images), verbose=0)
    return {
        "seed": seed,
        "guard": guard,
        "corrupted": int(bad.sum()),
        "loss": float(loss),
        "bad_skipped": int((skipped & bad).sum()),
        "good_skipped": int((skipped & ~bad).sum()),
        "rollbacks": len(roll_back.events),
    }


def runs_of(seed: int, steps: int) -> list[dict[str, Any]]:
    """Train on clean data and with each guard, and compare the losses with the clean run's."""
    bad = corrupted(seed, steps)
    clean = np.zeros_like(bad)
    plan = [("clean", clean, "max_norm=1"), ("clean, both", clean, "both")]
    plan += [(f"corrupted, {guard}", bad, guard) for guard in GUARDS]
    runs = [{"run": name, **train(seed, batches, guard)} for name, batches, guard in plan]
    for run in runs:
        run["ratio"] = run["loss"] / runs[0]["loss"]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--processes", type=int, default=1, help="that train at once")
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    arguments = parser.parse_args()
    # A forked process could not use JAX or TensorFlow.
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        work = partial(runs_of, steps=arguments.steps)
        runs = [run for runs in pool.map(work, range(arguments.seeds)) for run in runs]
    for name in dict.fromkeys(run["run"] for run in runs):
        ratios = [run["ratio"] for run in runs if run["run"] == name]
        close = sum(abs(ratio - 1) <= CLOSE for ratio in ratios)
        print(f"{name}: {close} of {len(ratios)} within 2 %, ratios {np.round(ratios, 3)}")
    folder = arguments.folder or (RESULTS if arguments.seeds == SEEDS else None)
    if folder is not None:
        found = {**versions(), "steps": arguments.steps, "runs": runs}
        name = f"spikes_{keras.config.backend()}.json"
        (folder / name).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
