"""The emulated optimizer: reduce, clip, decide to skip; then decay, update and bound."""

import copy
import math
from typing import Any

import numpy as np

from tests.configurations.configuration import (
    PATHS,
    SHAPES,
    Assignment,
    Configuration,
    first_weights,
)
from tests.configurations.emulation import changes, combined, rules
from tests.configurations.emulation.changes import UNMEASURED, Range
from tests.configurations.emulation.margins import Margins
from tests.configurations.emulation.numbers import (
    LARGEST,
    as_float32,
    norm,
    norm_in_float32,
    value_of,
)
from tests.configurations.emulation.skipping import Outcome, Skipping
from tests.configurations.emulation.update import Arrays, Update
from tests.configurations.emulation.weights import Weights

F = np.float32


class EmulatedOptimizer:
    """Emulates `ClippedOptimizer` for the gradients of a configuration."""

    def __init__(self, configuration: Configuration, backend: str) -> None:
        self.configuration = configuration
        self.steps = configuration.accumulation or 1
        self.margins = Margins()
        self.clipper = combined.make(configuration.clipper)
        rule = configuration.rule
        loses_nan = backend == "tensorflow" and configuration.mode == "xla"
        maximum = np.fmax if loses_nan else np.maximum
        self.rule = rules.make(
            rule.name, SHAPES, backend == "torch", maximum, **dict(rule.arguments)
        )
        self.weights = Weights(configuration, first_weights(configuration), backend)
        self.max_update_ratio = configuration.max_update_ratio
        self.ratios: list[tuple[Range, Range]] = []
        self.skipping = Skipping(configuration)
        self.calls = 0
        self.grad_norm = 0.0
        self.rows: list[tuple[float, float, float, bool]] = []
        self._forget()

    def _forget(self) -> None:
        self._sums = [np.zeros(SHAPES[place], "float32") for place in self.configuration.present]
        self._sizes = [np.zeros(SHAPES[place]) for place in self.configuration.present]
        self._loss_sum = F(0.0)

    @property
    def iterations(self) -> int:
        """Number of updates applied."""
        return self.calls // self.steps

    def assign(self, assignment: Assignment) -> None:
        """Give a number to a threshold."""
        if assignment.owner == "skip_above":
            self.skipping.skip_above = assignment.value
        elif assignment.owner == "max_update_ratio":
            kind, _, *others = self.max_update_ratio
            self.max_update_ratio = (kind, assignment.value, *others)
        elif assignment.owner == "max_weight":
            kind, _, *others = self.weights.bounds
            self.weights.bounds = (kind, assignment.value, *others)
        else:
            member = combined.member_at(self.clipper, assignment.owner)
            member.arguments[assignment.name] = assignment.value

    def apply(self, given: Arrays, loss: np.float32 | None) -> Outcome | None:
        """Run one call; return the error that is due after it."""
        with np.errstate(all="ignore"):
            scale = F(self.configuration.loss_scale or 1.0)
            own = [given[place] / scale for place in self.configuration.present]
            if (self.calls + 1) % self.steps:
                for index, gradient in enumerate(own):
                    self._sums[index] = gradient + self._sums[index]
                    self._sizes[index] = np.abs(np.float64(gradient)) + self._sizes[index]
                self._loss_sum += F(loss or 0.0)
                self._end_of_call()
                return None
            mean_loss = (self._loss_sum + F(loss or 0.0)) / F(self.steps)
            pairs = zip(own, self._sums, strict=True)
            average = [(gradient + total) / F(self.steps) for gradient, total in pairs]
            triples = zip(own, self._sizes, strict=True)
            sizes = [(np.abs(np.float64(g)) + total) / self.steps for g, total in triples]
            sizes = [np.where(np.isfinite(size), size, 0.0) for size in sizes]
            self._forget()
            return self._update(average, sizes, mean_loss)

    def _end_of_call(self) -> None:
        self.weights.average(self.iterations)
        self.weights.constrain()
        self.calls += 1

    def _update(self, average: Arrays, sizes: Arrays, loss: np.float32) -> Outcome | None:
        gradients = [np.float64(gradient) for gradient in average]
        bad = [not np.all(np.isfinite(gradient)) for gradient in gradients]
        if self.configuration.nonfinite == "zero" and any(bad):
            self.skipping.zeroed_steps += 1
            gradients = [np.where(np.isfinite(g), g, 0.0) for g in gradients]
        update = Update(
            gradients,
            self.configuration.present,
            [self.weights.values[place] for place in self.configuration.present],
            self.iterations,
            self.margins,
        )
        self.grad_norm = held = as_float32(update.norm)
        skip = self.skipping.decides(update, self.clipper, float(loss))
        clipped = self._clip(update, learns=held < LARGEST and not skip, skip=skip)
        paths = [PATHS[p] for p, b in zip(self.configuration.present, bad, strict=True) if b]
        if skip:
            self.ratios.append((UNMEASURED, UNMEASURED))
            self.calls -= self.steps - 1
            return self.skipping.after_skip(not math.isfinite(update.norm), paths)
        self.skipping.consecutive = 0
        self._step(clipped, update.gradients, sizes)
        return None

    def _clip(self, update: Update, learns: bool, skip: bool) -> Arrays:
        earlier = copy.deepcopy(self.clipper)
        clipped: Arrays = self.clipper.clip(update)
        after = norm_in_float32(norm(clipped))
        threshold = as_float32(self.clipper.used(update))
        self.rows.append(
            (norm_in_float32(update.norm), threshold, _scale(update, after, skip), skip)
        )
        if not learns:
            self.clipper = earlier
        return clipped

    def _step(self, clipped: Arrays, gradients: Arrays, sizes: Arrays) -> None:
        rate = F(value_of(self.configuration.learning_rate, self.calls))
        before = self.weights.copied()
        self.weights.decay(rate)
        for index, place in enumerate(self.configuration.present):
            gradient = clipped[index].astype("float32")
            factor = _factor(gradients[index], clipped[index])
            magnitude = np.maximum(sizes[index] * factor, np.abs(clipped[index]))
            step = self.rule.step(place, gradient, magnitude, rate, self.iterations)
            self.weights.subtract(place, step)
        self.ratios.append(self._limit(before))
        self.weights.bound(self.iterations)
        self._end_of_call()

    def _limit(self, before: tuple[Arrays, Arrays]) -> tuple[Range, Range]:
        if self.max_update_ratio is None:
            return UNMEASURED, UNMEASURED
        after = self.weights.values, self.weights.errors
        return changes.limit(self.max_update_ratio, self.iterations, before, after)

    @property
    def smallest_margin(self) -> float:
        """How close any decision came to the other result."""
        return min(self.margins.smallest, getattr(self.rule, "closest", math.inf))


def _scale(update: Update, after: float, skip: bool) -> float:
    """Return the norm after clipping over the norm before; 1 if unchanged, 0 if skipped."""
    before = norm_in_float32(update.norm)
    if skip:
        return 0.0
    if after == before:
        return 1.0
    if before == 0:
        return math.nan if math.isnan(after) else math.inf
    return after / (update.norm if before < LARGEST else before)


def _factor(before: np.ndarray, after: np.ndarray) -> Any:
    """Return the factor of the entries of a gradient, to scale their sizes."""
    ratio = np.abs(after) / np.where(before == 0, 1.0, np.abs(before))
    return np.where(np.isfinite(ratio), ratio, 1.0)
