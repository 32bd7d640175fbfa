"""Train the tasks of the sweep with `skip_above=Outliers()`, and count which updates it skips.

    KERAS_BACKEND=jax python -m benchmarks.outliers

Writes a table to standard output and `outliers.json` to `benchmarks/results/`. On clean data each
skip is a good update lost. The result is a count, so the backend and the machine do not matter.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras

from benchmarks import tasks
from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.sweep.training import OPTIMIZERS
from keras_clip import ClippedOptimizer, Outliers

RESULTS = Path(__file__).parent / "results"
STEPS = 800
SEEDS = (0, 1)


def train(name: str, kind: str, seed: int, steps: int) -> dict[str, Any]:
    """Train once with `max_norm=1`, and return how many updates were skipped."""
    task = tasks.load(name)
    keras.utils.set_random_seed(seed)
    model = task.make_model()
    optimizer = ClippedOptimizer(OPTIMIZERS[kind](), skip_above=Outliers(), history_size=steps)
    optimizer.build(model.trainable_variables)
    optimizer.learning_rate = task.good_rates[kind]
    inputs, targets = jnp.asarray(task.data.inputs), jnp.asarray(task.data.targets)
    is_corrupted = task.corrupted_batches(seed, steps)

    def loss(weights: Any, fixed: Any, batch: Any) -> Any:
        outputs, fixed = model.stateless_call(weights, fixed, batch[0], training=True)
        return task.loss(batch[1], outputs), fixed

    def step(carry: Any, now: Any) -> Any:
        weights, fixed, state = carry
        batch = task.batch(inputs[now[0]], targets[now[0]], now[1])
        gradients, fixed = jax.grad(loss, has_aux=True)(weights, fixed, batch)
        weights, state = optimizer.stateless_apply(state, gradients, weights)
        return (weights, fixed, state), None

    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    start = tuple([variable.value for variable in group] for group in groups)
    batches = (task.batches(seed, steps), is_corrupted)
    state = jax.jit(lambda start: jax.lax.scan(step, start, batches)[0])(start)[2]
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)
    skipped = optimizer.history["skipped"]
    # No update is skipped before the warm-up ends.
    is_corrupted[: optimizer.skip_above.warm_up] = False
    return {
        "task": name,
        "optimizer": kind,
        "seed": seed,
        "good": int((~is_corrupted).sum()),
        "good_skipped": int((skipped & ~is_corrupted).sum()),
        "corrupted": int(is_corrupted.sum()),
        "corrupted_skipped": int((skipped & is_corrupted).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(tasks.NAMES), help="names of tasks")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    arguments = parser.parse_args()
    runs = []
    for name in arguments.tasks:
        for kind in ("sgd", "adam"):
            own = [train(name, kind, seed, arguments.steps) for seed in SEEDS]
            runs += own
            sums = {key: sum(run[key] for run in own) for key in own[0] if "good" in key}
            caught = [f"{run['corrupted_skipped']} of {run['corrupted']}" for run in own]
            print(f"{name}, {kind}: {sums}, corrupted and skipped: {caught}", flush=True)
    is_whole = arguments.tasks == list(tasks.NAMES) and arguments.steps == STEPS
    folder = arguments.folder or (RESULTS if is_whole else None)
    if folder is not None:
        found = {**versions(), "steps": arguments.steps, "runs": runs}
        (folder / "outliers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
