"""The callback that goes back to an earlier state of the run."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip.arguments.hyperparameters import check_count, check_finite
from keras_clip.monitoring.batch_keeper import BatchKeeper, check_keeper
from keras_clip.recovery.guarded_run import GuardedRun, Place, Save
from keras_clip.recovery.options import Options, check_factor, check_steps
from keras_clip.recovery.run_state import build, check_one_process, loss_so_far


class RollBack(keras.callbacks.Callback):  # type: ignore[misc]
    """Go back to an earlier state if the run diverges, and go on with the batches that follow.

    Every `check_every` batches it reads the mean loss of these batches. A check is bad if

    - the loss is NaN or infinite,
    - or `loss > mean + multiple * deviation` of the latest `window` good checks,
    - or every update since the last check was skipped.

    A check with skipped and applied updates is not judged: its mean includes skipped batches.
    After `patience` bad checks in a row it restores the latest good snapshot bit for bit:
    weights, seeds of layers, moments, iterations, the clipper's state and all counters. The
    learning rate, metrics and `optimizer.history` stay; the column `rolled_back` of the history
    marks the updates that were taken back. `fit` then goes on with the next batch.
    Metrics restart, so the logs of the epoch cover the batches after the rollback. They also
    restart after a check with a NaN loss, which would stay in the mean.

    A snapshot is taken in a good check, every `every` batches and before the first batch, if all
    weights are finite. It is good once the check after it is good. If the run fails again before
    a new snapshot, the earlier snapshot is restored.

    In `fit` on all backends, give it as a callback. In a loop of your own, call `start` once and
    `after_batch` after each batch; on JAX this needs `optimizer.apply`, because state that a
    `stateless_apply` returns is yours. The optimizer need not be a `ClippedOptimizer`.

    The host waits for the device once per check. Snapshots take the memory of weights and
    optimizer, `snapshots` times, on the host. The callback itself is not saved: a resumed run
    begins with new snapshots, and a lowered learning rate stays. Each process would decide for
    itself, so several processes raise an error.

    `events` is a list of dicts, one for each rollback: `step`, the number of batches so far;
    `reason`; `bad_since`, the number of batches before the first bad check; in `fit`, `epoch` and
    `batch`, the indices from 0 of the first batch after these; `restored_step`; with `save_batch`,
    `files`, the batches of the first bad check and the one before. Each event is also logged as
    a warning of the logger "keras_clip".

    Args:
        every: int of at least 1, number of batches between two snapshots. Defaults to 100.
        snapshots: int of at least 1, number of latest snapshots to keep. Defaults to 2.
        check_every: int of at least 1, number of batches between two checks. Defaults to 10. With
            `steps_per_execution=k`, all numbers of batches count groups of `k`.
        patience: int of at least 1, number of bad checks in a row. Defaults to 3, so that
            single bad batches cause no rollback.
        multiple: float, at least 0, number of standard deviations. Defaults to 6.0.
        window: int of at least 2, number of good checks to compare with. No loss is an outlier
            before half of them are known. Defaults to 16.
        learning_rate_factor: float above 0 and at most 1, multiplies the learning rate at each
            rollback, or None. Defaults to None.
        learning_rate_steps: int of at least 1, number of batches after a rollback, then the
            factor is taken back. Defaults to None, never.
        max_rollbacks: int of at least 0, number of rollbacks before an error. Defaults to 3.
        save_batch: the `BatchKeeper` that the batches come from. It writes the suspected ones to
            files. Defaults to None, no files.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of its bounds; at the start, the optimizer is not built, or
            `learning_rate_factor` is given and the learning rate is a schedule, or several
            processes train, or the data does not come from `save_batch`; at a check, no metric
            "loss" was updated.
        TooManyRollBacksError: at a check, one more rollback would be needed. The model is in the
            state of the latest good snapshot.

    Reference:
        Chowdhery et al. 2022, "PaLM", arXiv 2204.02311, section 5.1: restart 100 steps before a
        spike, and skip 200 to 500 batches. Here the batches up to the check are skipped.

    Example:
        >>> import keras, numpy as np, keras_clip
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras_clip.ClippedOptimizer("adam"), loss="mse")
        >>> inputs, targets = np.ones((48, 4)), np.ones((48, 1))
        >>> targets[24:28] = np.nan  # in the seventh of twelve batches
        >>> roll_back = keras_clip.RollBack(every=2, check_every=1)
        >>> history = model.fit(
        ...     inputs, targets, batch_size=4, shuffle=False, verbose=0, callbacks=[roll_back]
        ... )
        >>> roll_back.events[0]["reason"], bool(np.isfinite(model.get_weights()[0]).all())
        ('the loss is nan', True)
    """

    def __init__(
        self,
        every: int = 100,
        *,
        snapshots: int = 2,
        check_every: int = 10,
        patience: int = 3,
        multiple: float = 6.0,
        window: int = 16,
        learning_rate_factor: float | None = None,
        learning_rate_steps: int | None = None,
        max_rollbacks: int = 3,
        save_batch: BatchKeeper | None = None,
    ) -> None:
        super().__init__()
        self._options = Options(
            every=check_count("every", every, minimum=1),
            snapshots=check_count("snapshots", snapshots, minimum=1),
            patience=check_count("patience", patience, minimum=1),
            multiple=check_finite("multiple", multiple),
            window=check_count("window", window, minimum=2),
            learning_rate_factor=check_factor(learning_rate_factor),
            learning_rate_steps=check_steps(learning_rate_steps, learning_rate_factor),
            max_rollbacks=check_count("max_rollbacks", max_rollbacks, minimum=0),
        )
        self._check_every = check_count("check_every", check_every, minimum=1)
        self._keeper = check_keeper(save_batch)
        self._run: GuardedRun | None = None
        self._pending: list[Any] = []
        self._batches = self._epoch = self._drawn_before = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        """A dict for each rollback of the run, in order of time."""
        return [] if self._run is None else self._run.events

    def start(self, model: Any, optimizer: Any = None) -> None:
        """Begin a run: take the first snapshot.

        Args:
            model: the Keras model.
            optimizer: the built optimizer. Defaults to `model.optimizer`.
        """
        self.set_model(model)
        chosen = model.optimizer if optimizer is None else optimizer
        check_one_process(model)
        self._run = GuardedRun(model, chosen, self._options, self._saver(self._check_every))
        self._pending = []
        self._batches = 0

    def after_batch(self, loss: Any) -> bool:
        """Count a batch of your own loop, and return whether the run went back.

        Args:
            loss: the loss of the batch, a scalar tensor or number. It is read at the next check.
        """
        if self._run is None:
            raise ValueError("Call RollBack.start(model, optimizer) before after_batch(loss).")
        self._pending.append(loss)
        self._batches += 1
        self._run.advance_to(self._batches, Place(self._batches - 1))
        self._end_lower_rate()
        if len(self._pending) < self._check_every:
            return False
        losses = [float(ops.convert_to_numpy(pending)) for pending in self._pending]
        self._pending = []
        return self._run.check(float(np.mean(losses)))

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the first snapshot, unless the first step will build the model."""
        del logs
        if self._keeper is not None:
            self._keeper.begin_fit(self)
        self._run = None
        self._batches = self._drawn_before = 0
        self._start_if_built()

    def _start_if_built(self) -> None:
        # On JAX, reading `self.model` brings the variables up to date, here and below.
        model = self.model
        assert model is not None
        if model.built:
            build(model.optimizer, model.trainable_variables)
            check_one_process(model)
            save = self._saver(self._check_every * model.steps_per_execution)
            self._run = GuardedRun(model, model.optimizer, self._options, save, self._batches)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras has reset the metrics."""
        del logs
        self._epoch = epoch
        self._losses_seen = np.zeros(2)

    # Not at the batch's end, where Keras would convert the logs of every batch and wait.
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Check the batches before this one."""
        del logs
        if self._run is None:
            self._start_if_built()
        self._check_if(self._check_every)
        self._end_lower_rate()
        self._batches += 1
        if self._run is not None:
            place = Place(self._drawn_before + batch, self._epoch, batch)
            self._run.advance_to(self._batches, place)

    def on_train_end(self, logs: Any = None) -> None:
        """Take back factors of the learning rate that have not ended."""
        del logs
        if self._run is not None and self.model is not None:
            self._run.end()

    def on_test_begin(self, logs: Any = None) -> None:
        """Check the rest of the epoch before the validation resets the metrics."""
        del logs
        self._check_if(1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check the rest of the epoch."""
        del epoch, logs
        self._check_if(1)
        # Known with `steps_per_epoch`; without, the data of a BatchKeeper ends here.
        self._drawn_before += self.params.get("steps") or 0

    def _check_if(self, fewest: int) -> None:
        """Check if there are as many unchecked batches."""
        run = self._run
        if run is None or run.unchecked < fewest:
            return
        model = self.model
        assert model is not None
        seen = loss_so_far(model)
        total, count = seen - self._losses_seen
        self._losses_seen = seen
        if run.check(total / count) or not np.isfinite(total):
            model.reset_metrics()
            self._losses_seen = np.zeros(2)

    def _saver(self, count: int) -> Save | None:
        """Return the function that saves `count` batches of a check and the one before."""
        if self._keeper is None:
            return None
        save = self._keeper.save
        return lambda first: save(first.number - 1, first.number + count)

    def _end_lower_rate(self) -> None:
        if self._run is not None and self._run.is_lowered_until(self._batches):
            # On JAX, this brings the variables up to date.
            assert self.model is not None
            self._run.raise_learning_rate(self._batches)
