"""A run that is checked from time to time, and goes back if it diverges."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_clip.recovery.loss_watch import LossWatch
from keras_clip.recovery.options import Options
from keras_clip.recovery.run_state import (
    Updates,
    learning_rates,
    mark_rolled_back,
    recorded_updates,
    restored_variables,
    updates_of,
    weights_are_finite,
)
from keras_clip.recovery.snapshots import Snapshots

_LOG = logging.getLogger("keras_clip")


class TooManyRollBacksError(RuntimeError):
    """A run diverged again after `max_rollbacks` rollbacks."""


class Place(NamedTuple):
    """Where a batch is: its number, in `fit` its epoch and index in the epoch; all from 0."""

    number: int
    epoch: int | None = None
    batch: int | None = None


Save = Callable[[Place], list[Path]]
"""Writes the batches of a bad check, which begins at a place, and returns the files."""


class GuardedRun:
    """One run: its step, its snapshots, and what happened.

    Args:
        model: the Keras model.
        optimizer: its optimizer, built.
        options: when to go back, and how often.
        save: writes the suspected batches before the run goes back, or None.
        step: number of batches so far. Defaults to 0.

    Raises:
        ValueError: the optimizer is not built, or `options` lower a learning rate that is not a
            number.
    """

    def __init__(
        self, model: Any, optimizer: Any, options: Options, save: Save | None, step: int = 0
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._options = options
        self._save = save
        self._check_optimizer()
        self.step = self._checked = self._before_check = step
        self._bad_in_a_row = 0
        self._first_suspect: Place | None = None  # the first batch since a good check
        self._lowered_until: list[int] = []
        self._assigned_rates: list[float] = []
        self.events: list[dict[str, Any]] = []
        self._watch = LossWatch(options.multiple, options.window)
        self._kept = Snapshots(options.snapshots, restored_variables(model, optimizer))
        self._take_snapshot()
        self._updates = updates_of(optimizer)

    def _check_optimizer(self) -> None:
        if not self._optimizer.built:
            raise ValueError(
                "RollBack copies the variables of the optimizer, and it has none yet. Call "
                "optimizer.build(model.trainable_variables) before RollBack.start(...)."
            )
        factor = self._options.learning_rate_factor
        if factor is not None and not learning_rates(self._optimizer):
            raise ValueError(
                "learning_rate_factor multiplies a learning rate that is a number, and this "
                "optimizer has a schedule. Leave learning_rate_factor out. Received: "
                f"learning_rate_factor={factor!r}."
            )

    def advance_to(self, step: int, place: Place) -> None:
        """Store the number of batches so far, and where the latest one is."""
        self.step = step
        if self._first_suspect is None:
            self._first_suspect = place

    @property
    def unchecked(self) -> int:
        """Number of batches since the last check."""
        return self.step - self._checked

    def check(self, loss: float) -> bool:
        """Judge the batches since the last check by their mean loss; True if the run went back."""
        self._checked = self.step
        applied, skipped = self._new_updates()
        if applied and skipped:
            # The losses of skipped batches are in the mean, and say nothing about the weights.
            if not self._bad_in_a_row:
                self._begin_check()
            return False
        reason = f"all updates were skipped ({skipped})" if skipped else self._watch.reason(loss)
        if reason is None:
            self._watch.learn(loss)
            self._bad_in_a_row = 0
            self._begin_check()
            self._keep()
            return False
        self._bad_in_a_row += 1
        if self._bad_in_a_row < self._options.patience:
            return False
        self._go_back(reason)
        return True

    def _begin_check(self) -> None:
        """Store that the next batch may be the first of a bad check."""
        self._before_check = self.step
        self._first_suspect = None

    def _new_updates(self) -> Updates:
        before, self._updates = self._updates, updates_of(self._optimizer)
        return Updates(
            self._updates.applied - before.applied, self._updates.skipped - before.skipped
        )

    def _keep(self) -> None:
        self._kept.confirm()
        is_due = self.step - self._kept.latest_step >= self._options.every
        if is_due and weights_are_finite(self._model):
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        self._kept.take(self.step, recorded_updates(self._optimizer))

    def _go_back(self, reason: str) -> None:
        restored = self._kept.restore()
        mark_rolled_back(self._optimizer, restored.updates)
        event = self._event(reason)
        self._updates = updates_of(self._optimizer)
        self._bad_in_a_row = 0
        if len(self.events) == self._options.max_rollbacks:
            raise TooManyRollBacksError(
                f"After {self.step} batches {reason}. The run has gone back "
                f"max_rollbacks={len(self.events)} times before: {self.events}. Latest event: "
                f"{event}. Lower the "
                "learning rate, or look at the data. The model has the state after "
                f"{restored.step} batches."
            )
        self.events.append({**event, "restored_step": restored.step})
        self._begin_check()
        self._lower_learning_rate()
        _LOG.warning(
            "After %s batches %s. RollBack restored the state after %s batches.",
            self.step,
            reason,
            restored.step,
        )

    def _event(self, reason: str) -> dict[str, Any]:
        first = self._first_suspect
        assert first is not None  # a check follows a batch
        event = {
            "step": self.step,
            "reason": reason,
            "bad_since": self._before_check,
            "epoch": first.epoch,
            "batch": first.batch,
        }
        return event if self._save is None else {**event, "files": self._save(first)}

    def _lower_learning_rate(self) -> None:
        factor = self._options.learning_rate_factor
        if factor is not None:
            self._assign_rates(factor)
            if self._options.learning_rate_steps is not None:
                self._lowered_until.append(self.step + self._options.learning_rate_steps)

    def is_lowered_until(self, step: int) -> bool:
        """Whether a lower learning rate ends after so many batches."""
        return step in self._lowered_until

    def raise_learning_rate(self, step: int) -> None:
        """Take back the factors that end after so many batches."""
        self._take_back(self._lowered_until.count(step))
        self._lowered_until = [until for until in self._lowered_until if until != step]

    def end(self) -> None:
        """Take back the factors that have not ended."""
        self._take_back(len(self._lowered_until))
        self._lowered_until = []

    def _take_back(self, count: int) -> None:
        factor = self._options.learning_rate_factor
        # Another callback may have set the learning rate meanwhile.
        if count and factor is not None and self._rates() == self._assigned_rates:
            self._assign_rates(factor**-count)

    def _assign_rates(self, factor: float) -> None:
        for rate in learning_rates(self._optimizer):
            rate.assign(rate * factor)
        self._assigned_rates = self._rates()

    def _rates(self) -> list[float]:
        return [float(rate.numpy()) for rate in learning_rates(self._optimizer)]
