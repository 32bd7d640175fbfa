"""Train the healthy and the faulty runs, and write their records to `runs.npz`.

    KERAS_BACKEND=jax python -m tests.diagnosis.record_runs [NAMES OF RUNS, by default all]

The tests read the file, because training takes minutes.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

import keras_clip
from benchmarks import tasks
from benchmarks.sweep.training import OPTIMIZERS
from keras_clip import ClippedOptimizer

FILE = Path(__file__).parent / "runs.npz"
STEPS = 400
EVERY = 10
COLUMNS = ("grad_norm", "clip_threshold", "clip_scale", "skipped", "update_ratio", "update_scale")


@dataclass(frozen=True)
class Plan:
    """One run: a task, an optimizer, limits, and a fault.

    Attributes:
        task: its name.
        kind: "sgd" or "adam".
        limits: returns arguments of `ClippedOptimizer`.
        rate: multiplies a good learning rate.
        spoiled: takes inputs, step and returns inputs; a fault of the data.
        damage: changes the model before training.
    """

    task: str
    kind: str
    limits: Callable[[], dict[str, Any]] = dict
    rate: float = 1.0
    spoiled: Callable[[Any, Any], Any] = field(default=lambda inputs, step: inputs)
    damage: Callable[[Any], None] = field(default=lambda model: None)


def _inputs_times(factor: float, when: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda inputs, step: inputs * jnp.where(when(step), factor, 1.0)


def _kill_units(model: Any) -> None:
    """Make all units of the first hidden layer negative."""
    bias = model.trainable_variables[1]
    bias.assign(bias - 100.0)


HEALTHY_TASKS = (
    "dense_digits",
    "convolutional",
    "batch_normalized",
    "vision_transformer",
    "recurrent_digits",
    "character_model",
    "lora",
    "fine_tuning",
)
OFF = float("inf")
HEALTHY = {
    f"{task}, {kind}": Plan(task, kind)
    for task in HEALTHY_TASKS
    for kind in OPTIMIZERS
    if kind != "lion"
}
HEALTHY |= {
    "no clip": Plan("dense_digits", "sgd", lambda: {"max_norm": OFF}),
    "AutoClip": Plan("dense_digits", "adam", lambda: {"clipper": keras_clip.AutoClip()}),
    "ZClip": Plan("convolutional", "adam", lambda: {"clipper": keras_clip.ZClip()}),
    "max_update_ratio": Plan("convolutional", "sgd", lambda: {"max_update_ratio": 0.03}),
}
FAULTY = {
    "learning rate too high": Plan(
        "heavy_tailed_regression", "adam", lambda: {"max_norm": OFF}, rate=100.0
    ),
    "one NaN batch": Plan(
        "dense_digits", "adam", spoiled=_inputs_times(jnp.nan, lambda step: step == 150)
    ),
    "NaN from one step on": Plan(
        "dense_digits",
        "adam",
        lambda: {"nonfinite": "skip"},
        spoiled=_inputs_times(jnp.nan, lambda step: step >= 150),
    ),
    "one batch in thirty overflows": Plan(
        "dense_digits",
        "adam",
        lambda: {"nonfinite": "skip"},
        spoiled=_inputs_times(jnp.inf, lambda step: step % 30 == 7),
    ),
    "a bad batch each epoch": Plan(
        "dense_digits", "sgd", spoiled=_inputs_times(1e3, lambda step: step % 40 == 11)
    ),
    "a threshold that is far too high": Plan("convolutional", "adam", lambda: {"max_norm": 1e4}),
    "a threshold that is far too low": Plan("dense_digits", "sgd", lambda: {"max_norm": 1e-3}),
    "a step limit that is far too low": Plan(
        "dense_digits", "adam", lambda: {"max_update_ratio": 1e-5}
    ),
    "all units dead": Plan("dense_digits", "sgd", damage=_kill_units),
    "skip_above too low": Plan("dense_digits", "sgd", lambda: {"max_norm": 0.5, "skip_above": 1.5}),
    "AutoClip learns from an explosion": Plan(
        "heavy_tailed_regression",
        "adam",
        lambda: {"clipper": keras_clip.AutoClip(90.0)},
        rate=100.0,
    ),
    "learning rate of almost nothing": Plan(
        "dense_digits", "sgd", lambda: {"max_update_ratio": OFF}, rate=1e-7
    ),
}


def record(plan: Plan) -> dict[str, np.ndarray]:
    """Train once, and return the columns of the record and the norms of the variables."""
    task = tasks.load(plan.task)
    keras.utils.set_random_seed(0)
    model = task.make_model()
    plan.damage(model)
    optimizer = ClippedOptimizer(OPTIMIZERS[plan.kind](), history_size=STEPS, **plan.limits())
    optimizer.record_variable_norms(EVERY)
    optimizer.build(model.trainable_variables)
    optimizer.learning_rate = plan.rate * task.good_rates[plan.kind]
    inputs, targets = jnp.asarray(task.data.inputs), jnp.asarray(task.data.targets)

    def loss(weights: Any, fixed: Any, batch: Any) -> Any:
        outputs, fixed = model.stateless_call(weights, fixed, batch[0], training=True)
        return task.loss(batch[1], outputs), fixed

    def step(carry: Any, now: Any) -> Any:
        weights, fixed, state = carry
        batch = (plan.spoiled(inputs[now[0]], now[1]), targets[now[0]])
        gradients, fixed = jax.grad(loss, has_aux=True)(weights, fixed, batch)
        weights, state = optimizer.stateless_apply(state, gradients, weights)
        return (weights, fixed, state), None

    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    start = tuple([variable.value for variable in group] for group in groups)
    batches = (task.batches(0, STEPS), np.arange(STEPS))
    state = jax.jit(lambda start: jax.lax.scan(step, start, batches)[0])(start)[2]
    for variable, value in zip(optimizer.variables, state, strict=True):
        variable.assign(value)
    norms = optimizer.variable_norms
    return {
        **{name: column for name, column in optimizer.history.items() if name in COLUMNS},
        **{f"variables/{path}": column for path, column in norms.items()},
    }


def main() -> None:
    only = sys.argv[1:]
    columns = dict(np.load(FILE)) if only else {}
    for group, plans in (("healthy", HEALTHY), ("faulty", FAULTY)):
        for name, plan in plans.items():
            if only and name not in only:
                continue
            print(group, name, flush=True)
            for column, values in record(plan).items():
                kept = values.astype("float32") if values.dtype == float else values
                columns[f"{group}/{name}/{column}"] = kept
    np.savez_compressed(FILE, **columns)


if __name__ == "__main__":
    main()
