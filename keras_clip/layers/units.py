"""What the units of a variable are."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Axes = tuple[int, ...]


class Units(NamedTuple):
    """The units of a variable; None is what nobody knows.

    Args:
        axes: axes over which one unit extends: a norm over them is that of one unit.
        fan_in: number of entries that one output is a sum over; 1 where there is no sum.
    """

    axes: Axes | None = None
    fan_in: int | None = None


UNKNOWN = Units()


def axes_of_optax(shape: Sequence[int]) -> Axes:
    """Return the axes that `optax.adaptive_grad_clip` takes for a shape."""
    rank = len(shape)
    if sum(size != 1 for size in shape) <= 1:
        return tuple(range(rank))
    # optax refuses ranks from 6 on.
    return (0,) if rank <= 3 else tuple(range(rank - 1))


def fan_in_by_shape(shape: Sequence[int]) -> int:
    """Return the number of inputs of a kernel whose last axis is its outputs."""
    return math.prod(shape[:-1]) if len(shape) > 1 else 1
