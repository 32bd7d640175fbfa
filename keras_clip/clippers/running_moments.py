"""Mean and standard deviation of a stream of numbers, one number at a time.

The state is the standard deviation, because a variance leaves the range of float32 long before
the norms do. Both rules move the mean by a part of its distance to the number. A constant stream
therefore gives exactly that constant and a deviation of 0.
"""

import math

from keras import ops

from keras_clip._seam import backend
from keras_clip.types import Tensor

Moments = tuple[Tensor, Tensor]


def of_all(mean: Tensor, deviation: Tensor, number: Tensor, count: Tensor) -> Moments:
    """Return the moments of `count` numbers, from `number`, the last, and those of the others.

    They are those of the population: the mean square divides by `count`, not by `count - 1`.
    """
    distance = number - mean
    others = ops.sqrt((count - 1.0) / count)
    spread = others * hypotenuse(deviation, ops.abs(distance) / ops.sqrt(count))
    return mean + distance / count, spread


def exponential(mean: Tensor, deviation: Tensor, number: Tensor, alpha: float) -> Moments:
    """Return exponential moving averages, with weight `alpha` for the old values.

    `mean' = alpha * mean + (1 - alpha) * number`, and the variance in the same way with
    `(number - mean') ** 2`.
    """
    distance = number - mean
    from_new_mean = alpha * ops.abs(distance)
    spread = hypotenuse(math.sqrt(alpha) * deviation, math.sqrt(1.0 - alpha) * from_new_mean)
    return mean + (1.0 - alpha) * distance, spread


def hypotenuse(one: Tensor, other: Tensor) -> Tensor:
    """Return `sqrt(one ** 2 + other ** 2)` of numbers of at least 0, without their squares."""
    larger = backend.where(one > other, one, other)
    smaller = backend.where(one > other, other, one)
    ratio = smaller / backend.where(larger > 0, larger, ops.ones_like(larger))
    return larger * ops.sqrt(1.0 + ratio * ratio)
