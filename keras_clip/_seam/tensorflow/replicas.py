"""Replicas of a `tf.distribute` strategy."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from keras_clip.types import Gradient, Gradients, Tensor, Variable


def all_reduce(
    original: Callable[..., Any] | None,
    gradients: Gradients,
    variables: Sequence[Variable],
) -> list[Gradient]:
    """Sum `gradients` over replicas with Keras's own method of the wrapped optimizer.

    Keras divides the loss by the number of replicas, so the sum is the whole batch's mean.
    """
    if not tf.distribute.has_strategy():
        # With one replica the all-reduce only costs time, and its output buffers cannot be reused.
        return list(gradients)
    assert original is not None
    native = [getattr(variable, "value", variable) for variable in variables]
    reduced = original(list(zip(gradients, native, strict=True)))
    return [gradient for gradient, _ in reduced]


def whole_loss(loss: Tensor) -> Tensor:
    """Return the sum of the mean losses of all replicas; call it on each of them."""
    loss = tf.reduce_mean(loss)
    if not tf.distribute.has_strategy():
        return loss
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, loss)


def on_every_replica(flag: Tensor) -> Tensor:
    """Return whether `flag` is true on every replica; call it on each of them."""
    missing = tf.cast(tf.logical_not(flag), tf.float32)
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, missing) == 0.0


def decides_across_replicas() -> bool:
    """Return whether updates are a `merge_call`, as under MirroredStrategy."""
    return not tf.__internal__.distribute.strategy_supports_no_merge_call()


def scope_of(variable: Variable) -> AbstractContextManager[Any]:
    """Return the scope of the strategy that `variable` was created under."""
    strategy = getattr(variable.value, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def process_count(variable: Variable) -> int:
    """Return the number of tasks in the cluster of the strategy of `variable`."""
    strategy = getattr(variable.value, "distribute_strategy", None)
    resolver = getattr(strategy, "cluster_resolver", None)
    tasks = {} if resolver is None else resolver.cluster_spec().as_dict()
    return max(1, sum(map(len, tasks.values())))


def asynchronous_strategy() -> str | None:
    """Return the name of the current strategy if its workers do not wait for each other."""
    strategy = tf.distribute.get_strategy()
    # The class in tf.distribute.experimental is its base class.
    asynchronous = tf.distribute.experimental.ParameterServerStrategy
    return type(strategy).__name__ if isinstance(strategy, asynchronous) else None
