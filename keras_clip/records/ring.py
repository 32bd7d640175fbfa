"""A ring buffer of rows on the device."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_clip._seam import backend
from keras_clip.types import Tensor, Variable

# Numbers of a row are at least 0, infinite or NaN. A NaN here would stop `jax_debug_nans` at every
# later step, because steps return all rows.
UNKNOWN = -1.0


class Ring:
    """A row for each of the latest `size` updates; an unknown row holds `UNKNOWN`.

    Args:
        wrapper: the optimizer that owns the variable.
        name: name of the variable, also in a file.
        size: int of at least 1, number of rows.
        columns: int of at least 1, numbers in a row.
        dtype: str, dtype of the numbers.
    """

    def __init__(self, wrapper: Any, name: str, size: int, columns: int, dtype: str) -> None:
        self.name = name
        self.size = size
        self.variable: Variable = wrapper.add_variable(
            (size, columns), dtype=dtype, aggregation="only_first_replica", name=name
        )

    def write(self, update: Tensor, row: Tensor) -> None:
        """Write the row of an update; `update` is an integer scalar tensor."""
        backend.write_row(self.variable, update % self.size, row)

    def read(self, steps: np.ndarray) -> np.ndarray:
        """Return the rows of some of the latest updates; waits for the device."""
        rows: np.ndarray = self.variable.numpy()[steps % self.size]
        return rows

    def replace(self, steps: np.ndarray, rows: np.ndarray) -> None:
        """Overwrite the rows of some of the latest updates; waits for the device."""
        values = self.variable.numpy().copy()
        values[steps % self.size] = rows
        self.variable.assign(values)

    def save(self, store: Any, updates: int) -> None:
        """Store the rows that are filled after `updates` updates."""
        store[self.name] = self.variable.numpy()[:updates]

    def load(self, store: Mapping[str, Any], updates: int) -> None:
        """Restore the rows that a ring of any size stored after `updates` updates."""
        latest = np.arange(max(0, updates - self.size), updates)
        rows = np.zeros(self.variable.shape, self.variable.dtype)
        rows[latest % self.size] = UNKNOWN
        # The stores of Keras 3.8 have `keys`, but no `in`.
        if self.name in {*store.keys()}:
            stored = np.asarray(store[self.name])
            known = latest[latest >= updates - len(stored)]
            rows[known % self.size] = stored[known % max(1, len(stored))]
        self.variable.assign(rows)
