"""The full record of one optimizer, collected from its history."""

import os
import warnings
from pathlib import Path

from keras_clip.monitoring.merging import merged, newly_rolled_back, since
from keras_clip.monitoring.record_csv import append_csv, read_csv, write_csv
from keras_clip.monitoring.tensorboard_events import TensorBoardEvents
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.records.history import Record


class Recording:
    """Read the history of an optimizer from time to time, and keep every row.

    Args:
        optimizer: the optimizer.
        csv: file of the record, or None. Rows of the same run in an existing file begin the
            record.
        events: receives each new row, or None.
    """

    def __init__(
        self,
        optimizer: ClippedOptimizer,
        csv: str | os.PathLike[str] | None,
        events: TensorBoardEvents | None,
    ) -> None:
        self.optimizer = optimizer
        self._csv = None if csv is None else Path(csv)
        self._events = events
        self._has_started = self._has_file = False
        self.record: Record = optimizer.history
        self._next_step = 0

    def start(self) -> int:
        """Read all rows, and return the number of updates so far; waits for the device."""
        latest = self.optimizer.history
        if self._csv is not None and not self._has_started:
            self._csv.parent.mkdir(parents=True, exist_ok=True)
            if self._csv.exists():
                self.record = read_csv(self._csv)
        self._has_started = True
        self._check_follows_on(_steps(latest) == self._next_step)
        self._tell_of_rollbacks(latest)
        self.record = merged(self.record, latest)
        self._next_step = _steps(latest)
        return self._next_step

    def read(self) -> None:
        """Add the rows since the last call; waits for the device."""
        if not self._has_started:
            # Zero epochs ran: keep the existing file.
            return
        latest = self.optimizer.history
        self._check_follows_on(_steps(latest) >= self._next_step)
        new = since(latest, self._next_step)
        self._warn_of_gap(new)
        self._tell_of_rollbacks(latest)
        self.record = merged(self.record, latest)
        self._write(new)
        self._next_step = _steps(latest)

    def _check_follows_on(self, does: bool) -> None:
        """Rewrite the whole file if the new rows do not continue its last line.

        This happens if the optimizer was set back, or trained without the monitor, or if earlier
        updates were rolled back.
        """
        self._has_file = self._has_file and does

    def _warn_of_gap(self, new: Record) -> None:
        lost = int(new["step"][0]) - self._next_step if len(new["step"]) else 0
        if lost > 0:
            warnings.warn(
                f"{lost} updates were not recorded: ClippedOptimizer(history_size="
                f"{self.optimizer.history_size}) had overwritten them before ClipMonitor read "
                "them. It reads at least once in as many batches. Make history_size larger.",
                stacklevel=2,
            )

    def _tell_of_rollbacks(self, latest: Record) -> None:
        taken_back = newly_rolled_back(self.record, latest)["step"]
        self._check_follows_on(not (taken_back < self._next_step).any())
        if self._events is not None and taken_back.size:
            self._events.write_rollback(taken_back)

    def _write(self, new: Record) -> None:
        if self._events is not None:
            self._events.write(new)
        if self._csv is None:
            return
        if self._has_file:
            append_csv(new, self._csv)
        else:
            write_csv(self.record, self._csv)
            self._has_file = True


def _steps(record: Record) -> int:
    return int(record["step"][-1]) + 1 if len(record["step"]) else 0
