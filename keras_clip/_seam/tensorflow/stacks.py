"""Many small tensors handled as few: those of one dtype and shape are stacked.

TensorFlow takes a microsecond or two to run any operation, and most of a millisecond to trace
it. A stack of small tensors is copied in less time than an operation on each of them takes.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip.types import Gradient

# Entries from which on copying a tensor takes longer than what stacking it saves.
_LARGEST = 2**11

# A stack of few tensors saves nothing.
_FEWEST = 4


class Stacks:
    """Which of some gradients go into which stack; the others stay as they are.

    Args:
        gradients: list of tensors, whose shapes need not be known, and of `tf.IndexedSlices`.
        may_stack: whether there is to be any stack.
    """

    def __init__(self, gradients: Sequence[Gradient], may_stack: bool) -> None:
        self._count = len(gradients)
        by_kind: dict[Hashable, list[int]] = {}
        for position, gradient in enumerate(gradients):
            kind = _kind(gradient) if may_stack else None
            by_kind.setdefault(position if kind is None else kind, []).append(position)
        groups = by_kind.values()
        self._stacks = [group for group in groups if len(group) >= _FEWEST]
        self._singles = [p for group in groups if len(group) < _FEWEST for p in group]

    def joined(self, tensors: Sequence[Gradient]) -> list[Gradient]:
        """Return the stacks, then the others."""
        stacks = [tf.stack([tensors[position] for position in group]) for group in self._stacks]
        return [*stacks, *(tensors[position] for position in self._singles)]

    def split(self, joined: Sequence[Gradient]) -> list[Gradient]:
        """Return the tensors in their order; a stack's share its memory."""
        tensors: list[Any] = [None] * self._count
        stacks, singles = joined[: len(self._stacks)], joined[len(self._stacks) :]
        for group, stack in zip(self._stacks, stacks, strict=True):
            for position, tensor in zip(group, tf.unstack(stack, num=len(group)), strict=True):
                tensors[position] = tensor
        for position, tensor in zip(self._singles, singles, strict=True):
            tensors[position] = tensor
        return tensors


def stacks_of(gradients: Sequence[Gradient]) -> Stacks:
    """Return how to stack `gradients`: not at all under XLA, where a stack is one more copy."""
    return Stacks(gradients, may_stack=not graphs.is_compiled_by_xla())


def _kind(gradient: Gradient) -> Hashable:
    """What those of one stack have in common; None for what goes into none."""
    if isinstance(gradient, tf.IndexedSlices):
        return None
    shape = gradient.shape
    if not shape.is_fully_defined() or shape.num_elements() > _LARGEST:
        return None
    return gradient.dtype.name, tuple(shape)
