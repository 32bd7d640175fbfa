"""The clip alone on TensorFlow: each one `tf.function`, gradients in, gradients out."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import keras_clip
from benchmarks.gradient_sets import Rows
from benchmarks.interleaved import Variant

PEER = "tf.clip_by_global_norm"
SPARSE = True


class Clips:
    """Gradients of some steps, and graphs to clip them.

    Args:
        sets: for each step a list of NumPy arrays and `Rows`.
    """

    def __init__(self, sets: list[list[Any]]) -> None:
        self.sets = [[_as_tensor(gradient) for gradient in own] for own in sets]
        self.graphs: dict[Callable[..., Any], Any] = {}

    def variant(self, function: Callable[..., Any], *limit: float) -> Variant:
        """Time the function of the gradients of a step, and of limits if any."""
        constants = [tf.constant(value) for value in limit]
        if function not in self.graphs:
            self.graphs[function] = _graph(function, (self.sets[0], *constants))
        graph = self.graphs[function]
        # TensorFlow takes longer to match a thousand arguments than to clip them.
        tail = [*constants, *graph.captured_inputs]
        flat = [tf.nest.flatten(own, expand_composites=True) + tail for own in self.sets]

        def run(arguments: list[Any]) -> Any:
            results = graph.inference_fn.call_preflattened(arguments)
            return results, float(results[-1])

        return Variant(flat.__getitem__, run)

    def by_keras_clip(self, gradients: list[Any], limit: Any) -> list[Any]:
        return keras_clip.clip_by_global_norm(gradients, limit)[0]

    def by_peer(self, gradients: list[Any], limit: Any) -> list[Any]:
        return list(tf.clip_by_global_norm(gradients, limit)[0])


def _graph(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    def with_number(gradients: list[Any], *limit: Any) -> Any:
        result = function(gradients, *limit)
        last = result[-1] if isinstance(result, list) else result
        return result, tf.reshape(last, [-1])[0]

    return tf.function(with_number, autograph=False).get_concrete_function(*arguments)


def _as_tensor(gradient: Any) -> Any:
    if isinstance(gradient, Rows):
        parts = (gradient.values, gradient.indices, gradient.shape)
        return tf.IndexedSlices(*(tf.constant(part) for part in parts))
    return tf.constant(gradient)


def by_keras(limit: float) -> Callable[[list[Any]], list[Any]]:
    return keras.optimizers.SGD(global_clipnorm=limit)._clip_gradients


def without_safety(gradients: list[Any], limit: Any) -> list[Any]:
    """Clip if needed, by a norm that overflows and does not sum repeated rows."""
    norm = tf.linalg.global_norm(gradients)
    return tf.cond(
        norm <= limit,
        lambda: gradients,
        lambda: list(tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0]),
    )


def safe_norm(gradients: list[Any]) -> Any:
    return keras_clip.global_norm(gradients)


def unsafe_norm(gradients: list[Any]) -> Any:
    return tf.linalg.global_norm(gradients)
