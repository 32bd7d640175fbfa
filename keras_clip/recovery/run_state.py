"""The variables of a run: a rollback restores some and leaves the others."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip._seam.multi_optimizer import members_of
from keras_clip.monitoring.clipped_optimizers import clipped_optimizers
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.types import Variable


def build(optimizer: Any, variables: Sequence[Variable]) -> None:
    """Build the optimizer as the first step would; on TensorFlow, `fit` starts without."""
    if not optimizer.built:
        with backend.scope_of(variables[0]):
            optimizer.build(variables)


def check_one_process(model: Any) -> None:
    """Raise if several processes train the model."""
    count = max((backend.process_count(v) for v in model.trainable_variables), default=1)
    if count > 1:
        raise ValueError(
            "RollBack works in one process: several would each decide for themselves whether to "
            f"go back. Received a model that {count} processes train. Leave RollBack out; "
            "skip_above=keras_clip.Outliers() decides the same on all processes."
        )


def restored_variables(model: Any, optimizer: Any) -> list[Variable]:
    """Return the variables of model and optimizer, each once.

    Metrics, learning rates and records are left out: `fit` resets the first, callbacks set the
    second, and the third keep the events of the run.
    """
    left_out = [variable for metric in model.metrics for variable in metric.variables]
    left_out += learning_rates(optimizer)
    for wrapper in clipped_optimizers(optimizer):
        left_out += wrapper.record_variables
    without = {id(variable) for variable in left_out}
    found = {id(v): v for v in (*model.variables, *optimizer.variables) if id(v) not in without}
    return list(found.values())


def learning_rates(optimizer: Any) -> list[Variable]:
    """Return the learning rates that are numbers, of an optimizer, wrapped or of its members."""
    inside = [*members_of(optimizer), getattr(optimizer, "inner_optimizer", None)]
    found = [rate for each in inside if each is not None for rate in learning_rates(each)]
    if found or any(each is not None for each in inside):
        return found
    rate = optimizer.learning_rate
    return [rate] if isinstance(rate, keras.Variable) else []


def weights_are_finite(model: Any) -> bool:
    """Whether no weight is NaN or infinite; waits for the device."""
    return all(bool(ops.all(ops.isfinite(weight.value))) for weight in model.trainable_variables)


def recorded_updates(optimizer: Any) -> list[int]:
    """Return the number of recorded updates of each wrapper; waits for the device."""
    return [wrapper.recorded_updates for wrapper in _built_wrappers(optimizer)]


def mark_rolled_back(optimizer: Any, first: Sequence[int]) -> None:
    """Mark the updates of each wrapper from `first` on as taken back; waits for the device."""
    for wrapper, update in zip(_built_wrappers(optimizer), first, strict=True):
        wrapper.mark_rolled_back(update)


def _built_wrappers(optimizer: Any) -> list[ClippedOptimizer]:
    # A member of a MultiOptimizer without variables is never built.
    return [wrapper for wrapper in clipped_optimizers(optimizer) if wrapper.built]


class Updates(NamedTuple):
    """Numbers of updates so far."""

    applied: int
    skipped: int


def updates_of(optimizer: Any) -> Updates:
    """Return the updates of all wrappers; waits for the device."""
    wrappers = _built_wrappers(optimizer)
    return Updates(
        applied=sum(int(ops.convert_to_numpy(wrapper.iterations)) for wrapper in wrappers),
        skipped=sum(int(wrapper.skipped_steps.numpy()) for wrapper in wrappers),
    )


def loss_so_far(model: Any) -> np.ndarray:
    """Return the sum and the number of the losses since metrics were reset; waits.

    Raises:
        ValueError: no metric counts the losses.
    """
    means = [m for m in model.metrics if m.name == "loss" and hasattr(m, "total")]
    pairs = [[float(ops.convert_to_numpy(v)) for v in (m.total, m.count)] for m in means]
    total, count = np.sum([[0.0, 0.0], *pairs], axis=0)
    if count == 0:
        raise ValueError(
            "RollBack reads the metric 'loss' of the model, and no batch has updated it. Let "
            "train_step update a keras.metrics.Mean(name='loss') that model.metrics lists, or "
            "train in a loop of your own with RollBack.after_batch(loss)."
        )
    return np.array([total, count])
