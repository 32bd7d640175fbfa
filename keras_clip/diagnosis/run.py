"""A recorded run, as the checks of a diagnosis read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_clip.monitoring.as_record import as_record
from keras_clip.monitoring.clipping_summary import ClippingSummary, summarize
from keras_clip.records.history import Record

# Number of updates whose median is the usual norm around an update.
_NEIGHBOURS = 50
# A single high value is no trend. A single low one may be all that came before an explosion.
_FIRST = 5


@dataclass(frozen=True)
class Finding:
    """A fault that a run shows. `print(finding)` shows text and advice.

    Args:
        name: str, the kind of fault, for programs.
        text: str, what happened, and when.
        advice: str, what to try next.

    Raises:
        FrozenInstanceError: an attribute is assigned.

    Example:
        >>> import keras_clip
        >>> finding = keras_clip.diagnose({"grad_norm": [0.0] * 50}).findings[0]
        >>> finding.name, finding.text
        ('zero gradients', '100 % of the updates had a gradient of 0, the first at 0.')
    """

    name: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.text} {self.advice}"


@dataclass(frozen=True)
class Run:
    """The columns of a run.

    Attributes:
        record: the columns of `as_record`.
        summary: their summary.
        variable_norms: norms by variable path, with `step`; empty if they were not recorded.
    """

    record: Mapping[str, np.ndarray]
    summary: ClippingSummary
    variable_norms: Record = field(default_factory=dict)

    @property
    def norms(self) -> np.ndarray:
        """All norms before clipping, in order."""
        return self.record["grad_norm"]

    @property
    def is_applied(self) -> np.ndarray:
        """Whether each update was applied and not taken back."""
        applied: np.ndarray = ~self.record["skipped"] & ~self.record["rolled_back"]
        return applied

    @property
    def usable(self) -> np.ndarray:
        """The finite norms above 0 of applied updates, in order."""
        norms = self.norms
        usable: np.ndarray = norms[self.is_applied & np.isfinite(norms) & (norms > 0)]
        return usable

    def step(self, row: int) -> int:
        """Return the number of updates before a row."""
        return int(self.record["step"][row])


def run_of(source: Any) -> Run:
    """Return the run of any source that `as_record` accepts."""
    record = as_record(source)
    norms = getattr(source, "variable_norms", {})
    return Run(record, summarize(record), norms if len(norms) > 1 else {})


def neighbourhoods(norms: np.ndarray) -> list[np.ndarray]:
    """Return views of about 50 consecutive norms each."""
    return np.array_split(norms, max(1, norms.size // _NEIGHBOURS))


def rise(values: np.ndarray) -> tuple[float, float]:
    """Return the least of the first five values, and the largest median of five in a row."""
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, _FIRST), axis=1)
    return float(values[:_FIRST].min()), float(medians.max())


def longest_row(flags: np.ndarray) -> tuple[int, int]:
    """Return the length and the first position of the longest unbroken row of true flags."""
    best = (0, 0)
    length = 0
    for position, flag in enumerate(flags.tolist()):
        length = length + 1 if flag else 0
        best = max(best, (length, length - position - 1), key=lambda found: found[0])
    return best[0], -best[1]
