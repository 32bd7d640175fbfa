"""Norms on TensorFlow."""

from collections.abc import Sequence

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip._seam.tensorflow.stacks import stacks_of
from keras_clip._seam.tensorflow.sum_of_squares import half_sum_of_squares
from keras_clip.norms import floating_point
from keras_clip.types import Tensor


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Square root of the sum of squares, rescaled only where squares leave the range."""
    return graphs.compiled_if_eager(_global_norm, _compiled_global_norm)(list(operands), dtype)


def _global_norm(operands: list[Tensor], dtype: str) -> Tensor:
    operands = stacks_of(operands).joined(operands)
    sum_of_squares = 2.0 * tf.add_n(_half_sums(operands, dtype))
    return tf.cond(
        floating_point.is_ordinary(sum_of_squares),
        lambda: floating_point.root(sum_of_squares),
        lambda: _extreme_norm(operands, dtype),
    )


def _extreme_norm(operands: list[Tensor], dtype: str) -> Tensor:
    """Norm whose sum of squares is not ordinary; each operation takes time to trace."""
    # What float32 holds has a square in float64, except on a TPU, whose programs XLA compiles.
    if dtype == "float64" or graphs.is_compiled_by_xla():
        return tf.cast(floating_point.rescaled_norm(operands), dtype)
    norm = floating_point.root(2.0 * tf.add_n(_half_sums(operands, "float64")))
    return floating_point.saturated(tf.cast(norm, dtype), norm)


def _half_sums(operands: Sequence[Tensor], dtype: str) -> list[Tensor]:
    # XLA divides the work itself, and two rows are little work for an accelerator.
    may_cut = not (graphs.is_compiled_by_xla() or graphs.has_accelerator())
    return [half_sum_of_squares(tf.cast(operand, dtype), may_cut) for operand in operands]


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Norm of each operand, all rescaled where the squares of any leave the range."""
    return graphs.compiled_if_eager(_norms, _compiled_norms)(list(operands), dtype)


def _norms(operands: list[Tensor], dtype: str) -> Tensor:
    sums_of_squares = 2.0 * tf.stack(_half_sums(operands, dtype))
    return tf.cond(
        tf.reduce_all(floating_point.is_ordinary(sums_of_squares)),
        lambda: floating_point.root(sums_of_squares),
        lambda: tf.stack([_extreme_norm([operand], dtype) for operand in operands]),
    )


_compiled_global_norm = graphs.traced(_global_norm)
_compiled_norms = graphs.traced(_norms)
