"""Records as event files, which TensorBoard shows."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_clip.records.history import Record

_SCALARS = ("grad_norm", "clip_threshold", "clip_scale")


class TensorBoardEvents:
    """Writes a curve for each column of a record, step by step, and histograms of norms.

    Without TensorFlow's summaries, so that it works on every backend.

    Args:
        log_dir: directory of the run, as for `keras.callbacks.TensorBoard`.
        prefix: str put before the tags' names.

    Raises:
        ImportError: the package tensorboard is missing.
    """

    def __init__(self, log_dir: str | os.PathLike[str], prefix: str = "") -> None:
        check_installed()
        self._log_dir = Path(log_dir) / "clipping"
        self._prefix = prefix
        self._writer: Any = None

    def write(self, rows: Record) -> None:
        """Add a point for each row and curve, and the histogram of all norms of the rows."""
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        if not len(rows["step"]):
            return
        for name in _SCALARS:
            if np.isnan(rows[name]).all():
                continue
            for step, value in zip(rows["step"].tolist(), rows[name].tolist(), strict=True):
                self._add(scalar_pb(self._tag(name), value), step)
        norms = rows["grad_norm"][np.isfinite(rows["grad_norm"])]
        self._add(histogram_pb(self._tag("grad_norms"), norms), int(rows["step"][-1]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file; the next row begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tag(self, name: str) -> str:
        return f"clipping/{self._prefix}{name}"

    def _add(self, summary: Any, step: int) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._log_dir))
        event = Event(step=step, wall_time=time.time())
        event.summary.MergeFrom(summary)
        self._writer.add_event(event)


def check_installed() -> None:
    """Raise if the package is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "ClipMonitor(tensorboard=...) writes event files with the package tensorboard, which "
            "is not installed: pip install tensorboard."
        ) from error
