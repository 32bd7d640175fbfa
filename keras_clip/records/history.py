"""Numbers of the latest updates, kept on the device until the host reads them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.hyperparameters import check_count
from keras_clip.norms.floating_point import as_dtype, scalar
from keras_clip.records.clip_scale import clip_scale, measured_scale
from keras_clip.records.ring import UNKNOWN, Ring
from keras_clip.types import Tensor, Variable

Record = dict[str, np.ndarray]

# Columns that a step writes; the host computes the rest when it reads them.
_COLUMNS = ("grad_norm", "clip_threshold", "norm_after_clip", "kind")

# `kind` is a bit mask: 1 skipped, 2 norm measured after the clip, 4 no threshold, 8 rolled back.
_SKIPPED, _MEASURED, _NO_THRESHOLD, _ROLLED_BACK = 1, 2, 4, 8

# Columns that a step writes after the wrapped optimizer has changed the weights.
UPDATE_COLUMNS = ("update_ratio", "update_scale")

_ROWS, _UPDATES, _RATIOS = "history", "history_updates", "history_of_update_ratios"


class History:
    """A row of numbers for each of the latest `size` updates; new rows replace the oldest.

    Args:
        size: int of at least 0, number of rows; 0 keeps none.

    Raises:
        TypeError: `size` is not an int.
        ValueError: `size` is negative.
    """

    NAMES = (_ROWS, _UPDATES, _RATIOS)  # they are saved under

    def __init__(self, size: int) -> None:
        self.size = check_count("history_size", size, minimum=0)
        self._rows: Any = None  # made by `build`
        self._updates: Any = None
        self._ratios: Ring | None = None

    def build(self, wrapper: Any, dtype: str, *, with_update_ratios: bool) -> None:
        """Create the rows and the count of all updates, as variables of `wrapper`."""
        # Workers that do not wait for each other would write one row at once.
        if not self.size or backend.asynchronous_strategy() is not None:
            return
        self._rows = Ring(wrapper, _ROWS, self.size, len(_COLUMNS), dtype)
        if with_update_ratios:
            self._ratios = Ring(wrapper, _RATIOS, self.size, len(UPDATE_COLUMNS), dtype)
        self._updates = wrapper.add_variable(
            (), dtype="int32", aggregation="only_first_replica", name=_UPDATES
        )

    @property
    def is_kept(self) -> bool:
        """Whether rows are kept."""
        return self._rows is not None

    @property
    def count(self) -> Tensor | None:
        """Number of updates so far, on the device; None if no rows are kept."""
        return self._updates.value if self.is_kept else None

    @property
    def first_row(self) -> Tensor | None:
        """A row on the device, or None: an operation on it runs after the rows are written."""
        return self._rows.variable.value[0] if self.is_kept else None

    @property
    def variables(self) -> list[Variable]:
        """The variables of the rows and the count."""
        rings = [ring.variable for ring in (self._rows, self._ratios) if ring is not None]
        return [*rings, self._updates] if self.is_kept else []

    def write(
        self, norm: Tensor, threshold: Tensor | None, after: Tensor | None, skip: Tensor | None
    ) -> None:
        """Add the row of an update.

        Args:
            norm: global norm before clipping.
            threshold: threshold of the global norm, or None without one.
            after: global norm after clipping, or None for `min(norm, threshold)`.
            skip: whether the update is not applied, or None if no update is skipped.
        """
        dtype = self._rows.variable.dtype
        norm = as_dtype(norm, dtype)
        known = ops.zeros_like(norm) if threshold is None else as_dtype(threshold, dtype)
        kind = ops.zeros_like(norm) if skip is None else ops.cast(skip, dtype)
        if threshold is None:
            kind = kind + _NO_THRESHOLD
        if after is None:
            row = [norm, known, known, kind]
        else:
            row = [norm, known, as_dtype(after, dtype), kind + _MEASURED]
        self._rows.write(self._updates.value, backend.stack(row))
        backend.count_up(self._updates)

    def write_skip_of_unknown_norm(self) -> None:
        """Add the row of an update whose gradients the optimizer has not seen."""
        unknown = scalar(UNKNOWN, self._rows.variable.dtype)
        self.write(unknown, None, None, ops.ones((), "bool"))

    def write_update_ratio(self, ratio: Tensor | None, scale: Tensor | None) -> None:
        """Complete the row that `write` added last.

        Args:
            ratio: norm of the change divided by norm of the weights, or None without a change.
            scale: norm of the change after its limit divided by norm before, or None.
        """
        if self._ratios is None:
            return
        dtype = self._ratios.variable.dtype
        row = [as_dtype(part, dtype) for part in (ratio, scale) if part is not None]
        if not row:
            row = [scalar(UNKNOWN, dtype)] * len(UPDATE_COLUMNS)
        self._ratios.write(self._updates.value - 1, backend.stack(row))

    def updates(self) -> int:
        """Return the number of updates so far; waits for the device."""
        return int(self._updates.numpy()) if self.is_kept else 0

    def read(self) -> Record:
        """Return the latest updates as columns, in order of time; waits for the device."""
        if not self.is_kept:
            return _columns(np.arange(0), np.zeros((0, len(_COLUMNS))))
        updates = self.updates()
        steps = np.arange(max(0, updates - self.size), updates)
        rows = self._rows.read(steps)
        # After loading a smaller history, older rows are unknown.
        is_known = rows[:, _COLUMNS.index("kind")] >= 0
        columns = _columns(steps[is_known], rows[is_known])
        if self._ratios is not None:
            ratios = self._ratios.read(steps[is_known]).T.astype("float64")
            columns |= dict(zip(UPDATE_COLUMNS, _with_nan(ratios), strict=True))
        return columns

    def mark_rolled_back(self, first: int) -> None:
        """Mark the rows from step `first` on as taken back; waits for the device."""
        if self.is_kept:
            kind = _COLUMNS.index("kind")
            updates = self.updates()
            steps = np.arange(max(first, updates - self.size), updates)
            rows = self._rows.read(steps)
            is_known = rows[:, kind] >= 0
            steps, rows = steps[is_known], rows[is_known]
            # Not by addition: an update can be taken back twice.
            rows[:, kind] = rows[:, kind].astype("int64") | _ROLLED_BACK
            self._rows.replace(steps, rows)

    def save(self, store: Any) -> None:
        """Store the filled rows and the count."""
        if self.is_kept:
            for ring in (self._rows, self._ratios):
                if ring is not None:
                    ring.save(store, self.updates())
            store[_UPDATES] = self._updates.numpy()

    def load(self, store: Mapping[str, Any]) -> None:
        """Restore the rows that `save` stored, from a history of any size, if there are any."""
        # The stores of Keras 3.8 have `keys`, but no `in`.
        if not self.is_kept or _ROWS not in {*store.keys()}:
            return
        updates = int(np.asarray(store[_UPDATES]))
        for ring in (self._rows, self._ratios):
            if ring is not None:
                ring.load(store, updates)
        self._updates.assign(updates)


def _columns(steps: np.ndarray, rows: np.ndarray) -> Record:
    norm, threshold, after, kind = rows.T.astype("float64")
    norm = _with_nan(norm)
    bits = kind.astype("int64")
    threshold = np.where(bits & _NO_THRESHOLD, np.nan, threshold)
    skipped = (bits & _SKIPPED) > 0
    scale = np.where(bits & _MEASURED, measured_scale(norm, after), clip_scale(norm, after))
    return {
        "step": steps,
        "grad_norm": norm,
        "clip_threshold": threshold,
        "clip_scale": np.where(skipped, 0.0, scale),
        "skipped": skipped,
        "rolled_back": (bits & _ROLLED_BACK) > 0,
    }


def _with_nan(numbers: np.ndarray) -> np.ndarray:
    return np.where(numbers == UNKNOWN, np.nan, numbers)
