"""Read a record from any source: a record, its CSV file, a monitor, an optimizer, a History."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_clip.monitoring.clipped_optimizers import clipped_optimizers
from keras_clip.monitoring.record_csv import read_csv
from keras_clip.records.clip_scale import clip_scale
from keras_clip.records.history import UPDATE_COLUMNS

_ACCEPTED = (
    "a record (a dict or DataFrame with a column 'grad_norm'), the path of a CSV file, a "
    "ClipMonitor, a ClippedOptimizer, or the History that model.fit returned"
)


def as_record(source: Any) -> dict[str, np.ndarray]:
    """Return the record that `source` is or has, with all six columns.

    Missing columns are filled in: `step` counts from 0, no update was skipped or rolled back,
    `clip_threshold` is NaN, and `clip_scale` follows from the threshold (NaN without one). The
    two columns of `max_update_ratio` are included if `source` has both.

    Raises:
        TypeError: `source` is something else; the message says what is accepted.
        ValueError: it holds no norms, or columns that do not fit together.
    """
    return _completed(_columns_of(source))


def is_table(source: Any) -> bool:
    """Whether it maps names to columns: a dict, or a DataFrame, which is not a `Mapping`."""
    return hasattr(source, "keys") and hasattr(source, "__getitem__")


def one_length(columns: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless all columns are 1-D and of one length."""
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(
            f"The columns of a record are 1-D and of one length. Received the shapes {shapes}."
        )


def _columns_of(source: Any) -> Any:
    if isinstance(source, str | os.PathLike):
        return read_csv(source)
    if is_table(source):
        return source
    if isinstance(source, keras.callbacks.History | keras.optimizers.Optimizer):
        return _history_of_wrapper(source)
    if hasattr(source, "record"):
        return source.record
    raise TypeError(f"Expected {_ACCEPTED}. Received: {source!r} of type {type(source).__name__}.")


def _history_of_wrapper(source: Any) -> Any:
    """Return the history of the only wrapper in an optimizer, or in the History of `fit`."""
    optimizer = source
    if isinstance(source, keras.callbacks.History):
        # Its own `history` has means over epochs; a threshold needs the norm of each update.
        optimizer = getattr(source.model, "optimizer", None)
    wrappers = clipped_optimizers(optimizer)
    if len(wrappers) != 1:
        raise ValueError(_not_one(optimizer, [wrapper.name for wrapper in wrappers]))
    return wrappers[0].history


def _not_one(optimizer: Any, names: list[str]) -> str:
    if names:
        return (
            f"There are {len(names)} ClippedOptimizers, {', '.join(names)}, each with norms of its "
            "own. Pass the one you mean, or its history."
        )
    return (
        f"The model was compiled with {type(optimizer).__name__}, which keeps no norms. Compile "
        'it with keras_clip.ClippedOptimizer(..., max_norm=float("inf")) to observe without '
        "clipping."
    )


def _completed(given: Any) -> dict[str, np.ndarray]:
    names = [str(name) for name in given.keys()]  # noqa: SIM118 - a DataFrame iterates likewise
    _check_names(names)
    norms = _floats(given, "grad_norm")
    unknown = np.full(norms.shape, np.nan)
    threshold = _floats(given, "clip_threshold") if "clip_threshold" in names else unknown
    record = {
        "step": np.asarray(given["step"]) if "step" in names else np.arange(norms.size),
        "grad_norm": norms,
        "clip_threshold": threshold,
        "clip_scale": unknown,
        "skipped": np.zeros(norms.shape, bool),
        "rolled_back": np.zeros(norms.shape, bool),
    }
    for name in ("skipped", "rolled_back"):
        if name in names:
            record[name] = np.asarray(given[name]).astype(bool)
    if "clip_scale" in names:
        record["clip_scale"] = _floats(given, "clip_scale")
    if {*UPDATE_COLUMNS} <= {*names}:
        record |= {name: _floats(given, name) for name in UPDATE_COLUMNS}
    one_length(record)
    if "clip_scale" not in names:
        record["clip_scale"] = clip_scale(norms, threshold)
    if (norms < 0).any():
        raise ValueError(f"A norm is at least 0. Received grad_norm={norms[norms < 0][0]}.")
    return record


def _check_names(names: Iterable[str]) -> None:
    names = list(names)
    if "step" not in names and {"grad_norm_max", "clipped_fraction"} & set(names):
        raise ValueError(
            "These are means over epochs, and a threshold is chosen by the norms of single "
            "updates. Pass what model.fit returned, the ClipMonitor or the optimizer."
        )
    if "grad_norm" not in names:
        raise ValueError(f"A record has a column 'grad_norm'. Received the columns {names}.")


def _floats(given: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(given[name], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers in the column {name!r}: {error}.") from None
