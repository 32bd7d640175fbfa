"""Copies of all variables in host memory, to which a run can go back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_clip.types import Variable


@dataclass
class Snapshot:
    """The values of all variables after a step.

    Attributes:
        step: number of batches before it.
        updates: number of recorded updates before it, of each wrapper.
        values: one array for each variable.
        is_confirmed: whether the next check found a good loss. Before, the weights may be bad
            already, because a loss shows a bad update only at the next batch.
        was_restored: whether the run went back to it once.
    """

    step: int
    updates: list[int]
    values: list[np.ndarray]
    is_confirmed: bool = False
    was_restored: bool = False

    def confirm(self) -> None:
        """Store that the loss after it is good."""
        self.is_confirmed = True

    def assign_to(self, variables: Sequence[Variable]) -> None:
        """Give the variables its values."""
        for variable, value in zip(variables, self.values, strict=True):
            variable.assign(value)
        self.was_restored = True

    @property
    def is_usable(self) -> bool:
        """Whether it is good, and the run has not failed after it."""
        return self.is_confirmed and not self.was_restored


class Snapshots:
    """The latest `size` snapshots of some variables.

    Args:
        size: int of at least 1.
        variables: the variables.
    """

    def __init__(self, size: int, variables: Sequence[Variable]) -> None:
        self._size = size
        self._variables = list(variables)
        self._kept: list[Snapshot] = []

    @property
    def latest_step(self) -> int:
        """Number of batches before the latest snapshot."""
        return self._kept[-1].step

    def take(self, step: int, updates: list[int]) -> None:
        """Copy the variables after so many batches and updates; the oldest copy gives way."""
        # `numpy()` copies: the next step may overwrite the buffers of the variables.
        values = [variable.numpy() for variable in self._variables]
        self._kept = [*self._kept, Snapshot(step, updates, values)][-self._size :]

    def confirm(self) -> None:
        """Store that the loss after the latest snapshot is good."""
        for snapshot in self._kept:
            snapshot.confirm()

    def restore(self) -> Snapshot:
        """Assign the latest confirmed snapshot, or the oldest, and return it.

        If the run fails twice after one snapshot, the earlier one is assigned.
        """
        while len(self._kept) > 1 and not self._kept[-1].is_usable:
            self._kept.pop()
        self._kept[-1].assign_to(self._variables)
        return self._kept[-1]
