"""Which batch of which epoch each skipped update is."""

from typing import Any

import numpy as np

from keras_clip._seam import keras_private
from keras_clip._seam.multi_optimizer import members_of
from keras_clip.monitoring.merging import since
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.records.history import Record

UNKNOWN = -1


class SkippedBatches:
    """Finds the batch of each skipped update by its position in the epoch.

    Args:
        optimizer: the optimizer.
    """

    def __init__(self, optimizer: ClippedOptimizer) -> None:
        self._optimizer = optimizer
        self._epoch = self._first_step = self._accumulated = 0
        self._rows: dict[int, tuple[int, int]] = {}

    def start_epoch(self, epoch: int, first_step: int) -> None:
        """Store which update begins the epoch; waits for the device."""
        self._epoch, self._first_step = epoch, first_step
        # The optimizer may have been set back.
        self._rows = {step: place for step, place in self._rows.items() if step < first_step}
        self._accumulated = 0
        if self._optimizer.built:
            batches = keras_private.batch_counter(self._optimizer)
            self._accumulated = int(batches.numpy()) % _batches_per_update(self._optimizer)

    def add(self, record: Record, is_scaled: bool) -> None:
        """Add the skipped updates of the epoch.

        Args:
            record: the record.
            is_scaled: whether a LossScaleOptimizer is around the optimizer.
        """
        rows = since(record, self._first_step)
        size = _batches_per_update(self._optimizer)
        # A rollback also sets back the number of micro-batches. The row of an overflow is a
        # single micro-batch.
        is_shifted = np.logical_or.accumulate(rows["rolled_back"]) | is_scaled
        batches = (rows["step"] - self._first_step + 1) * size - 1 - self._accumulated
        batches = np.where(is_shifted & (size > 1), UNKNOWN, batches)
        skipped = rows["skipped"]
        for step, batch in zip(rows["step"][skipped], batches[skipped], strict=True):
            self._rows[int(step)] = (self._epoch, int(batch))

    @property
    def columns(self) -> Record:
        """The columns `step`, `epoch` and `batch`, in order of time."""
        rows = [(step, *place) for step, place in sorted(self._rows.items())]
        columns = np.array(rows, np.int64).reshape(-1, 3).T
        return dict(zip(("step", "epoch", "batch"), columns, strict=True))


def _batches_per_update(wrapper: ClippedOptimizer) -> int:
    inner: Any = wrapper.inner_optimizer
    steps = [each.gradient_accumulation_steps for each in (inner, *members_of(inner))]
    return max(each or 1 for each in steps)
