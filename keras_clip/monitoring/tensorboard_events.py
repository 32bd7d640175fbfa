"""Records as event files for TensorBoard."""

import io
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from keras_clip.monitoring.whole_files import append, open_to_append
from keras_clip.records.history import UPDATE_COLUMNS, Record

_SCALARS = ("grad_norm", "clip_threshold", "clip_scale", *UPDATE_COLUMNS)


class TensorBoardEvents:
    """Write a curve for each column of a record, and histograms of the norms.

    It does not use TensorFlow's summaries, so it works on every backend.

    Args:
        log_dir: directory of the run, as for `keras.callbacks.TensorBoard`.
        prefix: str before the names of the tags.

    Raises:
        ImportError: the package tensorboard is missing.
    """

    def __init__(self, log_dir: str | os.PathLike[str], prefix: str = "") -> None:
        check_installed()
        self._path = Path(log_dir) / "clipping" / _file_name()
        self._prefix = prefix

    def write(self, rows: Record) -> None:
        """Add a point to each curve for each row, and a histogram of the rows' norms.

        Raises:
            OSError: the file cannot be written; the message names it. It keeps earlier rows.
        """
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        if not len(rows["step"]):
            return
        events = []
        for name in _SCALARS:
            if name not in rows or np.isnan(rows[name]).all():
                continue
            for step, value in zip(rows["step"].tolist(), rows[name].tolist(), strict=True):
                events.append(_event(step, scalar_pb(self._tag(name), value)))
        norms = rows["grad_norm"][np.isfinite(rows["grad_norm"])]
        last_step = int(rows["step"][-1])
        events.append(_event(last_step, histogram_pb(self._tag("grad_norms"), norms)))
        self._append(events)

    def write_rollback(self, steps: np.ndarray) -> None:
        """Add a point at 1 for each of these updates, which `RollBack` took back."""
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        summary = scalar_pb(self._tag("rolled_back"), 1.0)
        self._append([_event(step, summary) for step in steps.tolist()])

    def _tag(self, name: str) -> str:
        return f"clipping/{self._prefix}{name}"

    def _append(self, events: list[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        # Not EventFileWriter: its thread leaves half an event on a full disk, and raises errors
        # that Keras takes for the end of the data.
        records = io.BytesIO()
        writer = RecordWriter(records)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open_to_append(self._path) as file:
            if not file.seek(0, os.SEEK_END):
                events = [Event(wall_time=time.time(), file_version="brain.Event:2"), *events]
            for event in events:
                writer.write(event.SerializeToString())
            append(file, records.getvalue())


def _event(step: int, summary: Any) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(step=step, wall_time=time.time(), summary=summary)


def _file_name() -> str:
    """Return a file name that TensorBoard recognises as events, and sorts by time."""
    return f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{uuid.uuid4().hex}"


def check_installed() -> None:
    """Raise if the package is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ClipMonitor(tensorboard=...) writes event files with the package tensorboard, which "
            "is not installed: pip install tensorboard."
        ) from error
