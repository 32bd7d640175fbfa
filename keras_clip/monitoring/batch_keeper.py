"""Keep the latest batches of a training, and write some of them to files."""

import logging
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_clip.arguments.hyperparameters import check_count

_LOG = logging.getLogger("keras_clip")


class BatchKeeper:
    """Keep the latest batches that a training draws, so that callbacks can write them to files.

    Keras shows the data to no callback. Draw the batches through this object, and give it to
    `RollBack` or `RaiseOnNonFinite` as `save_batch`. They write each suspected batch to
    `folder/batch_NUMBER.npz`. The number counts from 0 in the order in which batches are drawn.
    The arrays of a file are named by their places in the batch: "0" for the inputs, "1" for the
    targets, "0/name" for an entry of a dict.

    In `fit` use `keeper(batches)` as the data, with `steps_per_epoch` and `shuffle=False`. In a
    loop of your own, iterate over it. Use one keeper for one training. It holds references, not
    copies, so the batches must not be overwritten in place.

    Args:
        folder: path of the folder for the files. It is created with the first file.
        keep: int of at least 1, number of latest batches to hold in memory. Keras draws a few
            batches ahead, and `RollBack` looks back by `patience * check_every` batches.
            Defaults to 64.

    Raises:
        TypeError: `keep` is not an int.
        ValueError: `keep` is below 1; at the start of `fit`, its data does not come from this
            keeper, or the keeper was used before.

    Example:
        >>> import keras, numpy as np, tempfile
        >>> from keras_clip import BatchKeeper, ClippedOptimizer, RollBack
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(ClippedOptimizer("adam"), loss="mse")
        >>> batches = [(np.ones((4, 4)), np.ones((4, 1))) for _ in range(12)]
        >>> batches[6][1][:] = np.nan
        >>> keeper = BatchKeeper(tempfile.mkdtemp())
        >>> roll_back = RollBack(every=2, check_every=1, save_batch=keeper)
        >>> history = model.fit(
        ...     keeper(batches),
        ...     steps_per_epoch=12,
        ...     shuffle=False,
        ...     verbose=0,
        ...     callbacks=[roll_back],
        ... )
        >>> [path.name for path in roll_back.events[0]["files"]]
        ['batch_5.npz', 'batch_6.npz']
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 64) -> None:
        self._folder = Path(folder)
        self._keep = check_count("keep", keep, minimum=1)
        self._drawn = self._started = 0
        self._kept: dict[int, Any] = {}
        self._callbacks: list[Any] = []

    def __call__(self, batches: Iterable[Any]) -> Generator[Any, None, None]:
        """Return a generator of the same batches, which begins again at their end.

        An iterator cannot begin again, so its generator ends.
        """
        self._started += 1
        while True:
            is_empty = True
            for batch in batches:
                is_empty = False
                self._kept[self._drawn] = batch
                self._kept.pop(self._drawn - self._keep, None)
                self._drawn += 1
                yield batch
            if is_empty or iter(batches) is batches:
                return

    def begin_fit(self, callback: Any) -> None:
        """Raise ValueError if the batches of this `fit` have other numbers, or none."""
        if not self._drawn:
            raise ValueError(
                "save_batch needs the data of fit to come from its BatchKeeper. Call "
                "fit(keeper(batches), steps_per_epoch=..., shuffle=False)."
            )
        if self._started > 1 or any(callback is each for each in self._callbacks):
            raise ValueError(
                "This BatchKeeper was used in an earlier fit, so its numbers of batches go on "
                "from there. Make a new BatchKeeper and a new callback for each fit."
            )
        self._callbacks.append(callback)

    def save(self, first: int, end: int) -> list[Path]:
        """Write the batches from number `first` to `end - 1`, and return the paths.

        A batch that is no longer kept is left out, with a warning in the log.
        """
        paths = []
        for number in range(max(0, first), min(end, self._drawn)):
            if number not in self._kept:
                _LOG.warning(
                    "Batch %s is not saved: only the latest %s are kept. Make BatchKeeper(keep="
                    "...) larger.",
                    number,
                    self._keep,
                )
                continue
            paths.append(self._folder / f"batch_{number}.npz")
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez(paths[-1], **_arrays(self._kept[number]))
        return paths


def check_keeper(save_batch: Any) -> BatchKeeper | None:
    """Return the argument `save_batch`, or raise TypeError."""
    if save_batch is None or isinstance(save_batch, BatchKeeper):
        return save_batch
    raise TypeError(
        "save_batch must be a keras_clip.BatchKeeper, which the batches pass through, or None. "
        f"Received: save_batch={save_batch!r}."
    )


def _arrays(batch: Any) -> dict[str, Any]:
    # A batch that is no tuple is the inputs, as in `fit`.
    parts = batch if isinstance(batch, (list, tuple)) else (batch,)
    return {
        "/".join(map(str, path)): keras.ops.convert_to_numpy(leaf)
        for path, leaf in keras.tree.flatten_with_path(parts)
        if leaf is not None
    }
