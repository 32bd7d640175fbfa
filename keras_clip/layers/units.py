"""The units of a variable."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Axes = tuple[int, ...]


class Units(NamedTuple):
    """The units of a variable; None means unknown.

    Args:
        axes: axes of one unit: a norm over them is the norm of one unit.
        fan_in: number of entries that an output sums over; 1 without a sum.
    """

    axes: Axes | None = None
    fan_in: int | None = None


UNKNOWN = Units()


def axes_of_optax(shape: Sequence[int]) -> Axes:
    """Return the axes that `optax.adaptive_grad_clip` uses for a shape."""
    rank = len(shape)
    if sum(size != 1 for size in shape) <= 1:
        return tuple(range(rank))
    # optax refuses ranks above 5.
    return (0,) if rank <= 3 else tuple(range(rank - 1))


def fan_in_by_shape(shape: Sequence[int]) -> int:
    """Return the number of inputs of a kernel whose last axis holds the outputs."""
    return math.prod(shape[:-1]) if len(shape) > 1 else 1
