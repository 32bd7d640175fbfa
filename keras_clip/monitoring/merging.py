"""Join rows that were read at different times into one continuous record."""

import numpy as np

from keras_clip.records.history import Record


def merged(kept: Record, latest: Record) -> Record:
    """Return `kept` up to the first step of `latest`, followed by `latest`.

    The optimizer's rows win: a run that returned to a checkpoint repeats the updates after it.
    """
    if set(kept) != set(latest) or not len(latest["step"]):
        return latest
    before = kept["step"] < latest["step"][0]
    return {name: np.concatenate([kept[name][before], latest[name]]) for name in latest}


def newly_rolled_back(kept: Record, latest: Record) -> Record:
    """Return the rows of `latest` that are rolled back now, and were not in `kept`."""
    known = kept["step"][kept["rolled_back"]]
    new = latest["rolled_back"] & ~np.isin(latest["step"], known)
    return {name: column[new] for name, column in latest.items()}


def since(record: Record, step: int) -> Record:
    """Return the rows from `step` on."""
    start = int(np.searchsorted(record["step"], step))
    return {name: column[start:] for name, column in record.items()}
