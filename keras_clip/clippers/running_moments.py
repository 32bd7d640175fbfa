"""Mean and standard deviation of a stream of numbers, one number at a time.

The standard deviation rather than the variance: squares of norms leave the range of float32
long before the norms do. Both rules move the mean by a part of its distance to the number,
so that a constant stream gives that constant and a deviation of exactly 0.
"""

import math

from keras import ops

from keras_clip._seam import backend
from keras_clip.types import Tensor

Moments = tuple[Tensor, Tensor]


def of_all(mean: Tensor, deviation: Tensor, number: Tensor, count: Tensor) -> Moments:
    """Moments of `count` numbers, of which `number` is the last, from those of the others.

    The population's: the mean square is over `count`, not `count - 1`.
    """
    distance = number - mean
    others = ops.sqrt((count - 1.0) / count)
    spread = others * hypotenuse(deviation, ops.abs(distance) / ops.sqrt(count))
    return mean + distance / count, spread


def exponential(mean: Tensor, deviation: Tensor, number: Tensor, alpha: float) -> Moments:
    """Exponential moving averages: `alpha` of the old and `1 - alpha` of the number.

    `mean' = alpha * mean + (1 - alpha) * number`, and likewise for the variance with
    `(number - mean') ** 2`.
    """
    distance = number - mean
    from_new_mean = alpha * ops.abs(distance)
    spread = hypotenuse(math.sqrt(alpha) * deviation, math.sqrt(1.0 - alpha) * from_new_mean)
    return mean + (1.0 - alpha) * distance, spread


def hypotenuse(one: Tensor, other: Tensor) -> Tensor:
    """`sqrt(one ** 2 + other ** 2)` of two numbers from 0 up, without their squares."""
    larger = backend.where(one > other, one, other)
    smaller = backend.where(one > other, other, one)
    ratio = smaller / backend.where(larger > 0, larger, ops.ones_like(larger))
    return larger * ops.sqrt(1.0 + ratio * ratio)
