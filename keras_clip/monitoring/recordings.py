"""The recordings of all optimizers that a monitor watches, by name."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_clip.monitoring.epoch_logs import epoch_logs
from keras_clip.monitoring.recording import Recording
from keras_clip.monitoring.skipped_batches import SkippedBatches
from keras_clip.monitoring.tensorboard_events import TensorBoardEvents
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.records.history import Record


class Recordings:
    """One `Recording` for each optimizer.

    Args:
        optimizers: the optimizers.
        csv: path of the file; with several optimizers, each file name begins with its name.
        tensorboard: directory of logs, or None.

    Raises:
        ValueError: several optimizers have one name.
    """

    def __init__(
        self,
        optimizers: Sequence[ClippedOptimizer],
        csv: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
    ) -> None:
        names = [optimizer.name for optimizer in optimizers]
        if len(set(names)) < len(names):
            raise ValueError(
                "ClipMonitor tells optimizers apart by their names. Received several of one name: "
                f"{names}. Give each its own: ClippedOptimizer(..., name=...)."
            )
        self._csv, self._tensorboard = csv, tensorboard
        self.prefixes = {name: f"{name}_" if len(names) > 1 else "" for name in names}
        self.by_name = {optimizer.name: self._recording(optimizer) for optimizer in optimizers}
        self._epoch_starts = dict.fromkeys(names, 0)
        self._skipped = {optimizer.name: SkippedBatches(optimizer) for optimizer in optimizers}

    def _recording(self, optimizer: ClippedOptimizer) -> Recording:
        csv, prefix = self._csv, self.prefixes[optimizer.name]
        if csv is not None and prefix:
            csv = Path(csv).with_name(prefix + Path(csv).name)
        events = None
        if self._tensorboard is not None:
            events = TensorBoardEvents(self._tensorboard, prefix)
        return Recording(optimizer, csv, events)

    @property
    def optimizers(self) -> dict[str, ClippedOptimizer]:
        """The optimizers, by name."""
        return {name: recording.optimizer for name, recording in self.by_name.items()}

    @property
    def records(self) -> dict[str, Record]:
        """The record of each optimizer, by name."""
        return {name: recording.record for name, recording in self.by_name.items()}

    @property
    def shortest_history(self) -> int:
        """Number of updates in the smallest history."""
        return min(optimizer.history_size for optimizer in self.optimizers.values())

    def are_of(self, optimizers: Sequence[ClippedOptimizer]) -> bool:
        """Whether these are the optimizers, in this order."""
        known = list(self.optimizers.values())
        pairs = zip(known, optimizers, strict=False)
        return len(known) == len(optimizers) and all(one is other for one, other in pairs)

    def check_histories(self) -> None:
        """Raise ValueError if an optimizer keeps no history."""
        for optimizer in self.optimizers.values():
            if not optimizer.history_size:
                raise ValueError(
                    f"ClipMonitor reads the history of {optimizer.name!r}, which has "
                    "history_size=0 and keeps none. Leave history_size out, or make it positive."
                )

    @property
    def skipped_batches(self) -> dict[str, Record]:
        """Epoch and batch of the skipped updates of each optimizer, by name."""
        return {name: skipped.columns for name, skipped in self._skipped.items()}

    def start_epoch(self, epoch: int) -> None:
        """Store the first update of the epoch; waits for the device."""
        self._epoch_starts = {name: own.start() for name, own in self.by_name.items()}
        for name, skipped in self._skipped.items():
            skipped.start_epoch(epoch, self._epoch_starts[name])

    def epoch_start(self, name: str) -> int:
        """Return the number of updates before the epoch."""
        return self._epoch_starts[name]

    def read(self, is_scaled: bool) -> None:
        """Add the rows since the last call; waits for the device.

        `is_scaled`: whether a LossScaleOptimizer is around the optimizers.
        """
        for name, recording in self.by_name.items():
            recording.read()
            self._skipped[name].add(recording.record, is_scaled)

    def logs(self) -> dict[str, float]:
        """Return the numbers of the epoch so far, of all optimizers."""
        return {
            self.prefixes[name] + key: value
            for name, record in self.records.items()
            for key, value in epoch_logs(record, self._epoch_starts[name]).items()
        }


def only(by_name: dict[str, Any], where: str) -> Any:
    """Return the value of the only optimizer, or raise."""
    if not by_name:
        raise ValueError("There is no record yet: ClipMonitor records while a model trains.")
    if len(by_name) > 1:
        raise ValueError(
            f"There are several optimizers: {', '.join(by_name)}. Take one of monitor.{where}."
        )
    return next(iter(by_name.values()))
