"""Sums of squares on TensorFlow: of long tensors as two rows, each summed by one thread.

TensorFlow halves the sum of some 100,000 entries between two threads; to wake the second and to
wait for it takes as long as its half. The norms of two rows it leaves to one thread up to several
times that length, and above it gives each thread a row: on two cores 300 tensors of 316 x 316 take
half as long, and up to a few million entries nothing is slower than `l2_loss` (TensorFlow 2.21).
"""

from collections.abc import Callable

import tensorflow as tf

from keras_clip.types import Tensor

# Entries of float32 that `l2_loss` adds up in one thread: from 96,000 on it takes two.
_ONE_THREADS_SHARE = 90_000

# Entries from which on the wait is lost in the work.
_LONG = 2**22


def half_sum_of_squares(tensor: Tensor, may_cut: bool) -> Tensor:
    """Return half the sum, which is what reads each entry once and keeps no square of it."""
    length = tensor.shape.num_elements()
    if not may_cut or length is None or length % 2 or not _ONE_THREADS_SHARE < length < _LONG:
        return tf.nn.l2_loss(tensor)
    return _half_sum_in_rows(tensor)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _half_sum_in_rows(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    # TensorFlow's derivative of a row's norm is NaN where the row is zero, this one is not.
    norms = tf.math.reduce_euclidean_norm(tf.reshape(tensor, [2, -1]), axis=1)
    return tf.nn.l2_loss(norms), lambda upstream: upstream * tensor
