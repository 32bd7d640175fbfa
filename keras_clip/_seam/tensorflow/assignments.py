"""Assignments to variables on TensorFlow, on one device or on replicas."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_clip._seam.tensorflow.replicas import decides_across_replicas
from keras_clip.norms import floating_point
from keras_clip.types import FactorPair, Tensor, Variable


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Assign as Keras's own updates do: all replicas together, each to its own copy."""
    tf.__internal__.distribute.interim.maybe_merge_call(
        _clamp_on_each_replica, tf.distribute.get_strategy(), _native(variables), list(bounds)
    )


def _clamp_on_each_replica(
    strategy: tf.distribute.Strategy, variables: list[Any], bounds: list[Tensor]
) -> None:
    def assign(variable: Any, bound: Tensor) -> None:
        variable.assign(floating_point.clamped(tf.convert_to_tensor(variable), bound))

    for variable, bound in zip(variables, bounds, strict=True):
        strategy.extended.update(variable, assign, args=(bound,), group=False)


def tensors(variables: Sequence[Variable]) -> list[Tensor]:
    """Read the variables; TensorFlow copies a variable that is written while its value is held."""
    return [tf.convert_to_tensor(native) for native in _native(variables)]


def shrink_changes(
    variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
) -> None:
    """Assign to all variables, if any share is below 1; see `clamp`."""

    def shrink() -> Tensor:
        tf.__internal__.distribute.interim.maybe_merge_call(
            _shrink_on_each_replica,
            tf.distribute.get_strategy(),
            _native(variables),
            list(before),
            list(factors),
        )
        return tf.constant(0)

    # A branch must not contain a `merge_call`.
    if decides_across_replicas():
        shrink()
    else:
        shares = tf.stack([coarse * fine for coarse, fine in factors])
        tf.cond(tf.reduce_any(shares < 1.0), shrink, lambda: tf.constant(0))


def _shrink_on_each_replica(
    strategy: tf.distribute.Strategy,
    variables: list[Any],
    before: list[Tensor],
    factors: list[FactorPair],
) -> None:
    def assign(variable: Any, before: Tensor, coarse: Tensor, fine: Tensor) -> None:
        value = tf.convert_to_tensor(variable)
        variable.assign(floating_point.between(before, value, coarse, fine))

    for variable, old, pair in zip(variables, before, factors, strict=True):
        strategy.extended.update(variable, assign, args=(old, *pair), group=False)


def _native(variables: Sequence[Variable]) -> list[Any]:
    # A `tf.Variable` also has a `value`, but it is a method.
    return [v if isinstance(v, tf.Variable) else v.value for v in variables]


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Scatter into the variable, or each replica into its copy: see `clamp`."""
    if not tf.distribute.has_strategy():
        _scatter_row(variable.value, index, row)
        return

    def write_on_each_replica(strategy: Any, native: Any, index: Tensor, row: Tensor) -> None:
        strategy.extended.update(native, _scatter_row, args=(index, row), group=False)

    strategy = tf.distribute.get_strategy()
    # A LossScaleOptimizer handles an overflow for all replicas at once.
    if tf.distribute.in_cross_replica_context():
        write_on_each_replica(strategy, variable.value, index, row)
    else:
        tf.__internal__.distribute.interim.maybe_merge_call(
            write_on_each_replica, strategy, variable.value, index, row
        )


def _scatter_row(variable: Any, index: Tensor, row: Tensor) -> None:
    variable.scatter_nd_update(tf.reshape(index, [1, 1]), row[tf.newaxis])


def count_up(variable: Variable) -> None:
    """Assign as Keras does under replicas."""
    if tf.distribute.has_strategy():
        variable.assign(variable.value + 1)
    else:
        variable.value.assign_add(1)
