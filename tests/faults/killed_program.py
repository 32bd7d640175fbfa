"""Train on, from the latest checkpoint: `python -m tests.faults.killed_program FOLDER`.

Checkpoints every few steps and says so on a line of its own, until somebody kills it or the
last step is done; then it prints a digest of all weights and all state.
"""

import hashlib
import os
import sys
from pathlib import Path

import keras
import numpy as np

from keras_clip import AutoClip, ClippedOptimizer
from tests.support.models import data, make_model

STEPS, EVERY, BATCH = 60, 5, 4
BAD = 7


def make() -> keras.Model:
    """Every kind of state: moments, sums of micro-batches, a clipper's window, counters."""
    inner = keras.optimizers.AdamW(0.01, gradient_accumulation_steps=2)
    clipper = [AutoClip(60.0, history_size=9), "ada_gc"]
    return make_model(ClippedOptimizer(inner, clipper=clipper, nonfinite="skip"))


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a step; every seventh batch is bad."""
    inputs, targets = data(STEPS * BATCH)
    rows = slice(step * BATCH, (step + 1) * BATCH)
    return inputs[rows], targets[rows] * (np.nan if step % BAD == BAD - 1 else 1.0)


def resume(folder: Path) -> tuple[keras.Model, int]:
    """Load the latest checkpoint; without one, make a new model."""
    found = sorted(folder.glob("[0-9]*.keras"))
    return (keras.models.load_model(found[-1]), int(found[-1].stem)) if found else (make(), 0)


def save(model: keras.Model, folder: Path, step: int) -> None:
    """Write beside and rename, so that a killed process leaves no partial file."""
    partial = folder / "partial.keras"
    model.save(partial)
    os.replace(partial, folder / f"{step:06d}.keras")


def digest(model: keras.Model) -> str:
    """Return a digest of everything that training changes."""
    variables = [*model.weights, *model.optimizer.variables]
    arrays = [np.asarray(keras.ops.convert_to_numpy(v.value)) for v in variables]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def train(folder: Path) -> None:
    """Go on to the last step."""
    model, step = resume(folder)
    print("began", step, flush=True)
    for current in range(step, STEPS):
        model.train_on_batch(*batch(current))
        print("step", current + 1, flush=True)
        if (current + 1) % EVERY == 0:
            save(model, folder, current + 1)
    print("digest", digest(model), flush=True)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
