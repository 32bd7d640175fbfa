"""Sums of squares on TensorFlow: a long tensor becomes two rows, each summed by one thread.

TensorFlow splits a sum of some 100,000 entries between two threads. Waking the second thread and
waiting for it takes as long as its half. The norms of two rows stay in one thread up to several
times that length, and above it each thread gets a row. On two cores, 300 tensors of 316 x 316 take
half as long; up to a few million entries nothing is slower than `l2_loss` (TensorFlow 2.21).
"""

from collections.abc import Callable

import tensorflow as tf

from keras_clip.types import Tensor

# Up to this many float32 entries, `l2_loss` uses one thread; from 96,000 it uses two.
_ONE_THREADS_SHARE = 90_000

# From this many entries, the wait is small against the work.
_LONG = 2**22


def half_sum_of_squares(tensor: Tensor, may_cut: bool) -> Tensor:
    """Return half the sum of squares; `l2_loss` reads each entry once and stores no square."""
    length = tensor.shape.num_elements()
    if not may_cut or length is None or length % 2 or not _ONE_THREADS_SHARE < length < _LONG:
        return tf.nn.l2_loss(tensor)
    return _half_sum_in_rows(tensor)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _half_sum_in_rows(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    # TensorFlow's derivative of the norm of a zero row is NaN; this one is not.
    norms = tf.math.reduce_euclidean_norm(tf.reshape(tensor, [2, -1]), axis=1)
    return tf.nn.l2_loss(norms), lambda upstream: upstream * tensor
