"""The wrapper's own variables in a file: their names, saving and loading."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_clip._seam.own_state import OwnState
from keras_clip.records.history import History
from keras_clip.types import Variable


class SavedState(OwnState):
    """The wrapper's own state, by name.

    Args:
        name: name of the optimizer, for warnings.
        variables: the variables, by their names in the file.
        history: the history; only its filled rows are saved.
    """

    def __init__(self, name: str, variables: Mapping[str, Variable], history: History) -> None:
        self._name = name
        self._variables = variables
        self._history = history

    def save_own_variables(self, store: Any) -> None:
        """Write the state to `store`."""
        for name, variable in self._variables.items():
            store[name] = variable.numpy()
        self._history.save(store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the state that fits, and warn of the rest; a bare optimizer's file has none."""
        # The stores of Keras 3.8 have `keys`, but no `in`.
        stored = {*store.keys()}
        if not stored:
            return
        self._history.load(store)
        left_out = []
        for name, variable in self._variables.items():
            value = np.asarray(store[name]) if name in stored else None
            if value is None or value.shape != tuple(variable.shape):
                left_out.append(name)
            else:
                variable.assign(value)
        unknown = sorted(stored - {*self._variables} - {*History.NAMES})
        if left_out or unknown:
            warnings.warn(self._left_out(left_out, unknown), stacklevel=2)

    def _left_out(self, left_out: Sequence[str], unknown: Sequence[str]) -> str:
        parts = []
        if left_out:
            parts.append(f"Missing in the file, or of another shape: {left_out}.")
        if unknown:
            parts.append(f"Only in the file: {unknown}.")
        return (
            f"A part of the state of {self._name!r} was not restored and keeps its first values. "
            f"{' '.join(parts)} The file was saved with another clipper or other trainable "
            "variables."
        )
