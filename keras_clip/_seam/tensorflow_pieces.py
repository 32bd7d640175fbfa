"""Sums of squares on TensorFlow, each piece of a tensor by one thread.

TensorFlow halves the sum of some 100,000 entries between two threads, and to wake and await the
second takes as long as its half. Pieces that stay below are summed by one thread each, several
pieces at a time. For long tensors the wait is lost in the work.
"""

import tensorflow as tf

from keras_clip.types import Tensor

# Entries of float32 that TensorFlow 2.21 sums in one thread: from 96,000 on it takes two.
_ONE_THREADS_SHARE = 90_000

# Entries from which on pieces save nothing.
_LONG = 2**18

# Entries of 64 bytes, at whose multiples a slice may begin without being copied.
_ALIGNED = 16


def half_sum_of_squares(tensor: Tensor, may_cut: bool) -> Tensor:
    """Return half the sum, which is what reads each entry once and keeps no square of it."""
    pieces = _pieces(tensor) if may_cut else [tensor]
    halves = [tf.nn.l2_loss(piece) for piece in pieces]
    return halves[0] if len(halves) == 1 else tf.add_n(halves)


def _pieces(tensor: Tensor) -> list[Tensor]:
    length = tensor.shape.num_elements()
    if length is None or not _ONE_THREADS_SHARE < length < _LONG:
        return [tensor]
    count = -(-length // _ONE_THREADS_SHARE)
    each = _ALIGNED * -(-length // (_ALIGNED * count))
    flat = tf.reshape(tensor, [-1])
    return [
        tf.slice(flat, [start], [min(each, length - start)]) for start in range(0, length, each)
    ]
