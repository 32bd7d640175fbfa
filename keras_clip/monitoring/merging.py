"""One continuous record out of what is read at different moments."""

import numpy as np

from keras_clip.records.history import Record


def merged(kept: Record, latest: Record) -> Record:
    """Return `kept` up to where `latest` begins, and then `latest`.

    What an optimizer remembers is right: where a run was set back to a checkpoint, updates
    after it are going to happen anew.
    """
    if set(kept) != set(latest) or not len(latest["step"]):
        return latest
    before = kept["step"] < latest["step"][0]
    return {name: np.concatenate([kept[name][before], latest[name]]) for name in latest}


def since(record: Record, step: int) -> Record:
    """Return the rows from `step` on."""
    start = int(np.searchsorted(record["step"], step))
    return {name: column[start:] for name, column in record.items()}
