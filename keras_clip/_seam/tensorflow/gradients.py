"""Dense and sparse gradients on TensorFlow."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Tensor


def as_gradient(value: Any) -> Gradient:
    """Convert to a tensor; slices stay slices, and their indices become tensors."""
    if not isinstance(value, tf.IndexedSlices):
        return tf.convert_to_tensor(value)
    shape = value.dense_shape
    return tf.IndexedSlices(
        tf.convert_to_tensor(value.values),
        tf.convert_to_tensor(value.indices),
        None if shape is None else tf.convert_to_tensor(shape),
    )


def is_sparse(gradient: Gradient) -> bool:
    """Return whether it is `tf.IndexedSlices`."""
    return isinstance(gradient, tf.IndexedSlices)


def values(gradient: Gradient) -> Tensor:
    """Return the tensor, or the values of slices."""
    return gradient.values if is_sparse(gradient) else gradient


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the tensor, or to the values of slices."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return function(gradient)


def norm_operand(gradient: Gradient) -> Tensor:
    """Return the values, with repeated rows of `tf.IndexedSlices` summed."""
    if not is_sparse(gradient):
        return gradient
    return _sum_repeated_rows(widened(gradient.values), gradient.indices)[0]


def row_totals(gradient: Gradient) -> tuple[Tensor, Tensor]:
    """Return for each row of slices the sum of all rows with its index, and the indices."""
    totals, segments = _sum_repeated_rows(widened(gradient.values), gradient.indices)
    return tf.gather(totals, segments), gradient.indices


def with_rows_summed(gradient: Gradient) -> Gradient:
    """Return slices with each row once, padded with zeros for row 0; others are unchanged."""
    if not is_sparse(gradient):
        return gradient
    indices = gradient.indices
    sums, segments = _sum_repeated_rows(widened(gradient.values), indices)
    rows = tf.math.unsorted_segment_max(indices, segments, num_segments=tf.shape(indices)[0])
    # An empty segment has the smallest integer.
    rows = tf.maximum(rows, tf.zeros_like(rows))
    return tf.IndexedSlices(tf.cast(sums, gradient.dtype), rows, gradient.dense_shape)


def _sum_repeated_rows(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return one row for each distinct index, padded with zeros, and the place of each row."""
    # XLA refuses tf.unique. Sorting keeps every shape static.
    order = tf.argsort(indices)
    rows = tf.gather(indices, order)
    is_new_row = tf.cast(rows[1:] != rows[:-1], tf.int32)
    first = tf.zeros_like(rows[:1], tf.int32)
    segments = tf.concat([first, tf.cumsum(is_new_row)], axis=0)
    sums = tf.math.unsorted_segment_sum(
        tf.gather(values, order), segments, num_segments=tf.shape(indices)[0]
    )
    return sums, tf.gather(segments, tf.argsort(order))


def widened(values: Tensor) -> Tensor:
    """Return half precision as float32."""
    return tf.cast(values, tf.float32) if floating_point.is_half(values) else values
