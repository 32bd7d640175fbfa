"""Stack many small tensors of one dtype and shape into few.

TensorFlow takes a microsecond or two to run any operation, and almost a millisecond to trace it.
Copying small tensors into a stack takes less time than one operation on each.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip.types import Gradient

# For tensors with more entries, the copy costs more than the stack saves.
_LARGEST = 2**11

# A stack of few tensors saves nothing.
_FEWEST = 4


class Stacks:
    """The assignment of gradients to stacks; other gradients are not stacked.

    Args:
        gradients: list of tensors, also of unknown shapes, and of `tf.IndexedSlices`.
        may_stack: whether stacks are allowed.
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
        """Return the stacks, followed by the other gradients."""
        stacks = [tf.stack([tensors[position] for position in group]) for group in self._stacks]
        return [*stacks, *(tensors[position] for position in self._singles)]

    def split(self, joined: Sequence[Gradient]) -> list[Gradient]:
        """Return the tensors in their order; tensors of a stack share its memory."""
        tensors: list[Any] = [None] * self._count
        stacks, singles = joined[: len(self._stacks)], joined[len(self._stacks) :]
        for group, stack in zip(self._stacks, stacks, strict=True):
            for position, tensor in zip(group, tf.unstack(stack, num=len(group)), strict=True):
                tensors[position] = tensor
        for position, tensor in zip(self._singles, singles, strict=True):
            tensors[position] = tensor
        return tensors


def stacks_of(gradients: Sequence[Gradient]) -> Stacks:
    """Return how to stack `gradients`; under XLA nothing is stacked, which would be a copy."""
    return Stacks(gradients, may_stack=not graphs.is_compiled_by_xla())


def _kind(gradient: Gradient) -> Hashable:
    """Return the common properties of a stack's tensors; None for a tensor without a stack."""
    if isinstance(gradient, tf.IndexedSlices):
        return None
    shape = gradient.shape
    if not shape.is_fully_defined() or shape.num_elements() > _LARGEST:
        return None
    return gradient.dtype.name, tuple(shape)
