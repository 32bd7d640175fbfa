"""The callback that reports what was clipped."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_clip.arguments.hyperparameters import check_count, check_flag
from keras_clip.monitoring.clipped_optimizers import clipped_optimizers
from keras_clip.monitoring.offenders import largest_norms, nonfinite_variables
from keras_clip.monitoring.record_csv import write_csv
from keras_clip.monitoring.recordings import Recordings, only
from keras_clip.monitoring.tensorboard_events import check_installed
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.records.history import Record


class ClipMonitor(keras.callbacks.Callback):  # type: ignore[misc]
    """Report what was clipped: in the logs of each epoch, and in a record of every update.

    The logs get these numbers, over the applied updates of the epoch:

    - `grad_norm`, `grad_norm_max`: mean and largest global norm before clipping;
    - `grad_norm_clipped`: mean global norm after clipping;
    - `clipped_fraction`: share of the updates that were clipped, from 0 to 1;
    - `clip_threshold`: the latest threshold, for clippers that have one for the global norm;
    - `skipped_steps`: number of updates that were not applied;
    - with `max_update_ratio`: `update_ratio`, `update_ratio_max`, mean and largest ratio of an
      update to the weights before the limit, and `limited_fraction`, share of the updates that
      were limited.

    Put this callback first in the list. Keras hands the logs from one callback to the next.
    `CSVLogger`, `TensorBoard` or `EarlyStopping(monitor="grad_norm", mode="min")` see these
    numbers only if they come later. The progress bar, the `History` that `fit` returns, `csv` and
    `tensorboard` get them at any position.

    If a `MultiOptimizer` has several `ClippedOptimizer`, each has its own numbers, prefixed with
    its name and an underscore.

    The device keeps the numbers. The host reads them once per epoch, and earlier if the next
    batch could overwrite unread ones.

    Args:
        per_batch: bool, whether the logs of each batch get the numbers of the epoch so far. The
            host then waits for the device at each batch. Defaults to False.
        per_variable: bool, whether to record the norms of single variables in `variable_norms`.
            The monitor then lists the largest when training ends. If a norm is NaN or infinite,
            it names the variables. Defaults to False.
        every: int of at least 1: with `per_variable`, the number of updates between two records.
            Defaults to 10.
        csv: path of a file for the record, or None. If the file exists and the optimizer
            continues the same run, the record continues the file.
        tensorboard: path of a directory of logs, or None. Its folder `clipping` gets curves of
            norm, threshold and scale for each update, and histograms of the norms.
        optimizers: list of `ClippedOptimizer` to watch, for a model that trains by others than
            the one it is compiled with. Defaults to the ones in `model.optimizer`, also inside a
            `LossScaleOptimizer` or `MultiOptimizer`.

    Raises:
        TypeError: an argument is of another type.
        ValueError: `every` is below 1, or norms are already recorded with another `every`. At
            the start of training: there is no `ClippedOptimizer`, one has `history_size=0`, or
            two have one name.
        ImportError: `tensorboard` is given, and the package is missing.

    Example:
        >>> import keras, numpy as np
        >>> from keras_clip import ClipMonitor, ClippedOptimizer
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(ClippedOptimizer("sgd", max_norm=1.0), loss="mse")
        >>> inputs, targets = np.ones((8, 4)), np.full((8, 1), 100.0)
        >>> monitor = ClipMonitor()
        >>> history = model.fit(inputs, targets, batch_size=2, verbose=0, callbacks=[monitor])
        >>> history.history["clipped_fraction"]
        [1.0]
        >>> monitor.record["step"].tolist()
        [0, 1, 2, 3]
    """

    def __init__(
        self,
        *,
        per_batch: bool = False,
        per_variable: bool = False,
        every: int = 10,
        csv: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
        optimizers: Sequence[ClippedOptimizer] | None = None,
    ) -> None:
        super().__init__()
        self.per_variable = check_flag("per_variable", per_variable)
        self.every = check_count("every", every, minimum=1)
        if tensorboard is not None:
            check_installed()
        self._csv, self._tensorboard = csv, tensorboard
        self._given = None if optimizers is None else _checked(optimizers)
        self._recordings = Recordings(())
        self._told: set[str] = set()
        self._previous_batch = self._read_at_batch = 0
        if check_flag("per_batch", per_batch):
            # A method that Keras finds overridden makes some backends wait at every batch.
            self.on_train_batch_end = self._add_logs_of_batch

    @property
    def records(self) -> dict[str, Record]:
        """The record of each optimizer, by its name."""
        return self._recordings.records

    @property
    def record(self) -> Record:
        """All updates until the device was last read, as NumPy columns in order of time.

        The column names are those of `ClippedOptimizer.history`. If a run was stopped and
        resumed, the record includes the earlier updates that the optimizer or the CSV file holds.
        """
        record: Record = only(self.records, "records")
        return record

    @property
    def skipped_batches(self) -> Record:
        """The skipped updates by `step`, with `epoch` and `batch` in the epoch, from 0.

        `batch` is the last of an accumulation. For an accumulation inside a `LossScaleOptimizer`
        it is -1, unknown.
        """
        record: Record = only(self._recordings.skipped_batches, "records")
        return record

    @property
    def variable_norms(self) -> Record:
        """Norms by variable path, with `per_variable`: `ClippedOptimizer.variable_norms`."""
        norms = {name: optimizer.variable_norms for name, optimizer in self.optimizers.items()}
        record: Record = only(norms, "optimizers")
        return record

    @property
    def optimizers(self) -> dict[str, ClippedOptimizer]:
        """The optimizers that are watched, by name."""
        return self._recordings.optimizers

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a file: a line of column names, and a line for each update."""
        write_csv(self.record, path)

    def to_pandas(self) -> Any:
        """Return the record as a `pandas.DataFrame`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "ClipMonitor.to_pandas needs pandas: pip install pandas. monitor.record has the "
                "same columns as NumPy arrays."
            ) from error
        return pandas.DataFrame(self.record)

    def set_model(self, model: Any) -> None:
        """Find the optimizers."""
        # When training begins, the step may already be compiled.
        super().set_model(model)
        found = clipped_optimizers(model.optimizer) if self._given is None else self._given
        if not self._recordings.are_of(found):
            self._recordings = Recordings(found, self._csv, self._tensorboard)
        if self.per_variable:
            self._record_variable_norms(found)

    def _record_variable_norms(self, optimizers: Sequence[ClippedOptimizer]) -> None:
        for optimizer in optimizers:
            if len(optimizer.variable_norms) == 1:
                # A step that was compiled without the norms would continue without them.
                self.model.train_function = None
            optimizer.record_variable_norms(self.every)

    def on_train_begin(self, logs: Any = None) -> None:
        """Raise if there is no optimizer to watch."""
        del logs
        self._told.clear()
        if not self.optimizers:
            raise ValueError(
                "ClipMonitor watches a ClippedOptimizer, and the model was compiled with "
                f"{type(self.model.optimizer).__name__}. Compile it with keras_clip."
                "ClippedOptimizer(...); max_norm=float('inf') there observes without clipping. Or "
                "name those that the model uses: ClipMonitor(optimizers=[...])."
            )
        self._recordings.check_histories()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the first update of the epoch."""
        del logs
        _ = self.model  # see `_read`
        self._previous_batch = self._read_at_batch = 0
        self._recordings.start_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Read rows that the next step would overwrite."""
        del logs
        ahead = 2 * batch - self._previous_batch - self._read_at_batch
        self._previous_batch = batch
        if ahead >= self._recordings.shortest_history:
            self._read()
            self._read_at_batch = batch

    def _add_logs_of_batch(self, batch: int, logs: Any = None) -> None:
        del batch
        self._read()
        self._add_to(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the numbers of the epoch to its logs."""
        del epoch
        self._read()
        self._add_to(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Read the rows after the last epoch, and list the largest norms."""
        del logs
        self._read()
        if self.per_variable:
            for optimizer in self.optimizers.values():
                print(largest_norms(optimizer.variable_norms))

    def _read(self) -> None:
        optimizer = self.model.optimizer  # On JAX, this brings the variables up to date.
        self._recordings.read(isinstance(optimizer, keras.optimizers.LossScaleOptimizer))
        if self.per_variable:
            self._tell_of_nonfinite()

    def _tell_of_nonfinite(self) -> None:
        for name, optimizer in self.optimizers.items():
            start = self._recordings.epoch_start(name)
            message = nonfinite_variables(optimizer.variable_norms, start)
            if message is not None and name not in self._told:
                self._told.add(name)
                print(message)

    def _add_to(self, logs: Any) -> None:
        if logs is not None:
            logs.update(self._recordings.logs())


def _checked(optimizers: Any) -> list[ClippedOptimizer]:
    listed: list[Any] = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    if not listed or not all(isinstance(each, ClippedOptimizer) for each in listed):
        raise TypeError(
            f"optimizers must be a list of ClippedOptimizer. Received: optimizers={optimizers!r}."
        )
    return listed
