"""Decisions about an update on TensorFlow."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip._seam.tensorflow.replicas import decides_across_replicas
from keras_clip.types import Tensor

# For a large model, an error lists only the first names.
_NAMES_IN_A_MESSAGE = 20


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """Run `otherwise(*arguments)` if the scalar is true, else `body(*arguments)`."""
    if not decides_across_replicas():
        _cond(condition, lambda: body(*arguments), lambda: otherwise(*arguments))
        return

    # In a replica context, a branch of `cond` must not contain a `merge_call`, as updates under
    # MirroredStrategy do. Decide across replicas instead, like Keras's LossScaleOptimizer. The
    # condition of the first replica is enough: all come from the same reduced gradients.
    def decide(strategy: Any, conditions: Any, *per_replica: Any) -> None:
        _cond(
            strategy.experimental_local_results(conditions)[0],
            lambda: strategy.extended.call_for_each_replica(body, args=per_replica),
            lambda: strategy.extended.call_for_each_replica(otherwise, args=per_replica),
        )

    tf.distribute.get_replica_context().merge_call(decide, args=(condition, *arguments))


def _cond(condition: Tensor, body: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
    def returning_nothing(function: Callable[[], Any]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            function()
            return tf.constant(0)

        return run

    tf.cond(condition, returning_nothing(otherwise), returning_nothing(body))


def can_raise(may_wait: bool) -> bool:
    """Return whether an assertion has an effect here; XLA drops assertions."""
    return tf.executing_eagerly() or not (may_wait or graphs.is_compiled_by_xla())


def assert_not(
    fatal: Tensor,
    error: Callable[[Sequence[str]], Exception],
    names: Sequence[str],
    flags: Tensor,
    after: Sequence[Tensor],
) -> None:
    """Raise at this place of a graph, with the text of the error and the names."""
    concerned = tf.boolean_mask(tf.constant(list(names)), tf.cast(flags, tf.bool))
    # TensorFlow does not order assertions, so without this it may precede writes of variables.
    with tf.control_dependencies(list(after)):
        tf.debugging.Assert(
            tf.logical_not(fatal), [str(error(())), concerned], summarize=_NAMES_IN_A_MESSAGE
        )
