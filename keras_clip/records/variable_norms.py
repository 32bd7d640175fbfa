"""Norms of single variables' gradients, kept on the device until the host reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.hyperparameters import check_count
from keras_clip.clippers import Update
from keras_clip.layers.paths import path_of
from keras_clip.norms.global_norm import norms_of_tensors
from keras_clip.records.history import Record
from keras_clip.types import Tensor, Variable


class VariableNorms:
    """A row with the norm of each variable, at every k-th update; off until `start`."""

    def __init__(self) -> None:
        self.every = 0
        self._size = 0
        self._paths: list[str] = []
        self.variables: list[Variable] = []

    def start(self, every: int, size: int) -> None:
        """Turn recording on; call `build` afterwards, also if it was called before."""
        every = check_count("every", every, minimum=1)
        size = check_count("size", size, minimum=1)
        if self.every and (every, size) != (self.every, self._size):
            raise ValueError(
                f"Norms are recorded with every={self.every}, size={self._size} already, which "
                f"steps are compiled with. Give the same numbers, or make a new ClippedOptimizer. "
                f"Received: every={every}, size={size}."
            )
        self.every, self._size = every, size

    def build(self, wrapper: Any, variables: Sequence[Variable]) -> None:
        """Create the rows, their steps, and the counts, as variables of `wrapper`."""
        if not self.every or self.variables:
            return
        strategy = backend.asynchronous_strategy()
        if strategy is not None:
            raise ValueError(
                f"Norms of single variables cannot be recorded under {strategy}, whose workers "
                "would write one row at once. Leave record_variable_norms out, or use "
                "MirroredStrategy."
            )
        self._paths = _distinct([path_of(variable) for variable in variables])
        self._places = {id(variable): place for place, variable in enumerate(variables)}

        def add(shape: tuple[int, ...], dtype: str, name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype=dtype, aggregation="only_first_replica", name=name
            )

        # An extra row takes the updates that are not due, so that no branch is needed.
        shape = (self._size + 1, len(self._paths))
        self._rows = add(shape, wrapper.clipper.dtype, "variable_norms")
        self._steps = add((self._size + 1, 1), "int32", "variable_norms_steps")
        self._taken = add((2,), "int32", "variable_norms_taken")
        self.variables = [self._rows, self._steps, self._taken]

    def write(self, update: Update, previous_norm: Tensor, step: Tensor | None) -> None:
        """Add the norms of an update if they are due; `step` is that of the history, or None."""
        if not self.variables or not update.gradients:
            return
        updates = self._taken.value[0] if step is None else step
        taken = self._taken.value[1]
        turns_bad = ops.logical_and(
            ops.isfinite(previous_norm), ops.logical_not(ops.isfinite(update.global_norm))
        )
        is_due = ops.logical_or(updates % self.every == 0, turns_bad)
        norms = ops.cast(self._norms(is_due, update), self._rows.dtype)
        place = ops.where(is_due, taken % self._size, ops.zeros_like(taken) + self._size)
        backend.write_row(self._rows, place, self._as_row(norms, update.variables))
        backend.write_row(self._steps, place, updates[None])
        taken = taken + ops.cast(is_due, "int32")
        self._taken.assign(ops.stack([updates + 1, taken]))

    def _norms(self, is_due: Tensor, update: Update) -> Tensor:
        return _compiled_norms_if(is_due, update.gradients, update.global_norm)

    def _as_row(self, norms: Tensor, variables: Sequence[Variable]) -> Tensor:
        """Return the norms in the order of all variables, with 0 for those without a gradient."""
        given = {self._places[id(variable)]: norm for norm, variable in enumerate(variables)}
        if [given.get(place) for place in range(len(self._paths))] == list(range(len(given))):
            return norms
        none = ops.zeros((), norms.dtype)
        every = [norms[given[p]] if p in given else none for p in range(len(self._paths))]
        return ops.stack(every)

    def read(self) -> Record:
        """Return the latest rows as columns, in order of time; waits for the device."""
        if not self.variables:
            return {"step": np.arange(0)}
        taken = int(self._taken.numpy()[1])
        places = np.arange(max(0, taken - self._size), taken) % self._size
        steps = self._steps.numpy()[places, 0].astype("int64")
        rows = self._rows.numpy()[places].astype("float64")
        return {"step": steps, **dict(zip(self._paths, rows.T, strict=True))}


def _distinct(paths: list[str]) -> list[str]:
    """Return unique names: add a number to a name that is taken, also by `step`."""
    taken = {"step"}
    for place, path in enumerate(paths):
        number = 1
        while paths[place] in taken:
            number += 1
            paths[place] = f"{path} ({number})"
        taken.add(paths[place])
    return paths


def _norms_if(is_due: Tensor, gradients: list[Any], like: Tensor) -> Tensor:
    """Return the norms if they are due, and zeros otherwise if that saves the measurement."""

    def zeros() -> Tensor:
        return ops.zeros((len(gradients),), like.dtype)

    def norms() -> Tensor:
        return ops.cast(norms_of_tensors(gradients), like.dtype)

    return backend.choose(ops.logical_not(is_due), zeros, norms)


_compiled_norms_if = backend.compiled(_norms_if, ())
