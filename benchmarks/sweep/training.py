"""One program that trains a task with all numbers, learning rates and seeds of a cell at once."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from benchmarks import tasks
from benchmarks.sweep.cells import Cell, Extent
from benchmarks.sweep.rules import RULES, chosen_settings, number_of
from benchmarks.sweep.schedules import factors
from benchmarks.tasks.task import Task
from keras_clip import ClippedOptimizer

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.1),
    "lion": lambda: keras.optimizers.Lion(0.1),
}
# A smaller change is rounding.
_ROUNDING = 1e-6
_SHARES = ("clipped_share", "limited_share")


def train(cell: Cell, extent: Extent) -> dict[str, Any]:
    """Return settings, learning rates, seeds and the results of all their combinations."""
    task = tasks.load(cell.task)
    settings = chosen_settings(cell.rule, extent.is_full)
    rates = extent.learning_rates(task.good_rates[cell.optimizer], cell.near)
    steps = extent.steps(task.steps)
    program = Program(task, cell)
    shared = program.shared(extent.seeds, steps, cell.schedule)
    lanes = _lanes(list(settings.values()), rates, len(extent.seeds))
    shape = (len(settings), len(rates), len(extent.seeds))
    results, seconds = _run(program.run, lanes, shared, task.lanes)
    return {
        "settings": list(settings),
        "learning_rates": rates,
        "seeds": list(extent.seeds),
        "steps": steps,
        "score": _nested(results["score"].reshape(shape)),
        # Means over seeds: how often a rule acted hardly depends on the seed.
        **{name: _nested(results[name].reshape(shape).mean(axis=2)) for name in _SHARES},
        "seconds": seconds,
        "device": jax.devices()[0].device_kind,
    }


class Program:
    """A training run as a function of arrays, for `vmap`."""

    def __init__(self, task: Task, cell: Cell) -> None:
        self.task = task
        self.model = task.make_model()
        rule = RULES[cell.rule]
        # A history of one update: what `run` counts.
        clipped = ClippedOptimizer(
            OPTIMIZERS[cell.optimizer](), history_size=1, **rule.limits(), **task.limits
        )
        self.optimizer = _loss_scaled(clipped) if task.is_loss_scaled else clipped
        self.optimizer.build(self.model.trainable_variables)
        self.state = [variable.value for variable in self.optimizer.variables]
        self.rate = self._position(self.optimizer.learning_rate)
        self.numbers = {
            name: self._position(number_of(clipped, name))
            for name in next(iter(rule.settings.values()))
        }
        self.records = {
            variable.name: position
            for position, variable in enumerate(self.optimizer.variables)
            if variable.name in ("history", "history_of_update_ratios")
        }

    def _position(self, variable: Any) -> int:
        return [own is variable for own in self.optimizer.variables].index(True)

    def shared(self, seeds: Sequence[int], steps: int, schedule: str) -> dict[str, Any]:
        """Return the arrays that all runs read: data, and for each seed weights and batches."""
        rate_factors, ratio_factors = factors(schedule, steps)
        task = self.task
        return {
            "data": task.data.__dict__,
            "start": _stacked([_initial_values(task, seed) for seed in seeds]),
            "steps": {
                "batch": np.stack([task.batches(seed, steps) for seed in seeds], axis=1),
                "is_corrupted": np.stack(
                    [task.corrupted_batches(seed, steps) for seed in seeds], axis=1
                ),
                "rate_factor": rate_factors,
                "ratio_factor": ratio_factors,
            },
        }

    def run(self, lane: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
        """Train once, with the numbers, the learning rate and the seed of a lane."""
        weights, fixed = jax.tree.map(lambda values: values[lane["seed"]], shared["start"])

        def step(carry: Any, now: Any) -> Any:
            weights, fixed, state, counts = carry
            batch = self._batch(shared["data"], now, lane["seed"])
            gradients, fixed = jax.grad(self._loss, has_aux=True)(weights, fixed, state, *batch)
            state = self._with_numbers(state, lane, now)
            weights, state = self.optimizer.stateless_apply(state, gradients, weights)
            return (weights, fixed, state, counts + self._counts(state)), None

        start = (weights, fixed, self.state, jnp.zeros(2))
        (weights, fixed, _, counts), _ = jax.lax.scan(step, start, shared["steps"])
        data = shared["data"]
        outputs, _ = self.model.stateless_call(
            weights, fixed, data["held_out_inputs"], training=False
        )
        shares = counts / len(shared["steps"]["rate_factor"])
        return {
            "score": self.task.score(data["held_out_targets"], outputs),
            "clipped_share": shares[0],
            "limited_share": shares[1],
        }

    def _batch(self, data: Any, now: Any, seed: Any) -> tuple[Any, Any]:
        chosen = now["batch"][seed]
        inputs, targets = data["inputs"][chosen], data["targets"][chosen]
        return self.task.batch(inputs, targets, now["is_corrupted"][seed])

    def _loss(
        self, weights: Any, fixed: Any, state: Any, inputs: Any, targets: Any
    ) -> tuple[Any, Any]:
        outputs, fixed = self.model.stateless_call(weights, fixed, inputs, training=True)
        loss = self.task.loss(targets, outputs)
        if self.task.is_loss_scaled:
            loss = loss * state[self._position(self.optimizer.dynamic_scale)]
        return loss, fixed

    def _with_numbers(self, state: Any, lane: Any, now: Any) -> list[Any]:
        """Return the state with the learning rate and the limits of a step."""
        state = list(state)
        state[self.rate] = lane["rate"] * now["rate_factor"]
        for name, position in self.numbers.items():
            factor = now["ratio_factor"] if name == "max_update_ratio" else 1.0
            state[position] = lane["numbers"][name] * factor
        return state

    def _counts(self, state: Any) -> Any:
        """Return whether the latest update was clipped, and whether its step was limited.

        The columns are those of `keras_clip.records.history`. A row has the norm before the clip,
        and the norm or the threshold after it. A ratio has the share of the step that was left.
        """
        row = state[self.records["history"]][0]
        is_clipped = row[2] < row[0] * (1.0 - _ROUNDING)
        is_limited = jnp.asarray(False)
        if "history_of_update_ratios" in self.records:
            is_limited = state[self.records["history_of_update_ratios"]][0, 1] < 1.0
        return jnp.stack([is_clipped, is_limited]).astype("float32")


def _loss_scaled(clipped: ClippedOptimizer) -> Any:
    """Return the optimizer as `compile` makes it, with a scale that may grow in a short run."""
    return keras.optimizers.LossScaleOptimizer(clipped, dynamic_growth_steps=50)


def _initial_values(task: Task, seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    model = task.make_model()
    return (
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def _lanes(settings: list[dict[str, float]], rates: list[float], seeds: int) -> dict[str, Any]:
    """Return the arrays of all combinations, grouped by setting."""
    shape = (len(settings), len(rates), seeds)
    setting, rate, seed = (axis.ravel() for axis in np.indices(shape))
    return {
        "rate": np.asarray(rates, "float32")[rate],
        "seed": seed.astype("int32"),
        "numbers": {
            name: np.asarray([own[name] for own in settings], "float32")[setting]
            for name in settings[0]
        },
    }


def _run(
    run: Callable[..., Any], lanes: dict[str, Any], shared: dict[str, Any], most: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run all lanes in parts of one size, which compile once."""
    count = len(lanes["seed"])
    parts = -(-count // most)
    size = -(-count // parts)
    # The last part is filled up with the first lanes.
    chosen = np.arange(parts * size) % count
    started = time.perf_counter()
    shared = jax.device_put(shared)
    first = jax.tree.map(lambda values: values[:size], lanes)
    program = jax.jit(jax.vmap(run, in_axes=(0, None))).lower(first, shared).compile()
    compiled = time.perf_counter()
    results = []
    for part in range(parts):
        own = chosen[part * size : (part + 1) * size]
        part_lanes = jax.tree.map(lambda values, own=own: values[own], lanes)
        results.append(jax.device_get(program(part_lanes, shared)))
    joined = jax.tree.map(lambda *values: np.concatenate(values)[:count], *results)
    finished = time.perf_counter()
    return joined, {
        "compile": round(compiled - started, 1),
        "run": round(finished - compiled, 1),
    }


def _nested(values: np.ndarray) -> Any:
    """Return nested lists with four digits; None replaces NaN and infinity, which JSON lacks."""
    if values.ndim:
        return [_nested(value) for value in values]
    return float(f"{values:.4g}") if np.isfinite(values) else None
