"""Gradient accumulation where updates are a `merge_call`, as under MirroredStrategy.

Keras puts the update into a branch of a `cond` in each replica's context, which may not contain
a `merge_call`: it raises. Here all replicas take the branch together. Gradients are summed over
replicas before they are accumulated, so that every replica's copy of the sums is the same, and a
checkpoint in the midst of an accumulation, which keeps the first copy, keeps all.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_clip._seam import backend, keras_private
from keras_clip.types import Gradients, Optimizer, Variable


def is_needed(optimizer: Optimizer) -> bool:
    """Whether Keras itself would raise."""
    return bool(optimizer.gradient_accumulation_steps) and backend.decides_across_replicas()


def accumulate_or_update(
    optimizer: Optimizer,
    gradients: Gradients,
    variables: list[Variable],
    update: Callable[..., None],
    prepared: tuple[Any, ...] = (),
) -> None:
    """Do what `_backend_apply_gradients` does, with gradients summed over replicas.

    Args:
        optimizer: the optimizer, which accumulates.
        gradients: of this micro-batch.
        variables: their variables.
        update: called on update steps, with `gradients` and what is `prepared`.
        prepared: tensors that `update` needs besides.
    """
    _check_moving_average(optimizer)
    accumulators = keras_private.accumulators(optimizer, variables)

    def run_update(gradients: Gradients, *prepared: Any) -> None:
        optimizer._apply_weight_decay(variables)
        update(gradients, *prepared)
        keras_private.reset_accumulators(optimizer)

    def accumulate(gradients: Gradients, *prepared: Any) -> None:
        del prepared
        optimizer._backend_increment_gradient_accumulators(gradients, accumulators)

    is_micro_step = ops.logical_not(keras_private.is_update_step(optimizer))
    changed = keras_private.all_variables(optimizer)
    backend.run_unless(is_micro_step, run_update, accumulate, (list(gradients), *prepared), changed)
    if optimizer.use_ema:
        optimizer._update_model_variables_moving_average(optimizer._trainable_variables)
    if keras_private.counts_on_arrival(optimizer):
        optimizer._iterations.assign_add(1)


def _check_moving_average(optimizer: Optimizer) -> None:
    if optimizer.use_ema and optimizer.ema_overwrite_frequency:
        raise ValueError(
            "Keras cannot overwrite variables with their moving average during training under "
            "this distribution strategy. Leave ema_overwrite_frequency out: the averages are "
            "taken over at the end of fit, or by the callback keras.callbacks.SwapEMAWeights. "
            f"Received: ema_overwrite_frequency={optimizer.ema_overwrite_frequency!r}."
        )
