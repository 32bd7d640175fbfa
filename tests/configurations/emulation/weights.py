"""Weights in float32, with their accepted errors."""

import re
from typing import Any

import numpy as np

from tests.configurations.configuration import CONSTRAINED, FAN_IN, PATHS, Configuration
from tests.configurations.emulation.numbers import value_of
from tests.configurations.emulation.rules import ROUNDOFF, Step
from tests.configurations.emulation.update import Arrays

F = np.float32


class Weights:
    """The weights, their moving averages, and the error of each entry of both."""

    def __init__(self, configuration: Configuration, values: Arrays, backend: str) -> None:
        self.configuration = configuration
        self.values = values
        self.errors = [np.zeros(value.shape) for value in values]
        self.averages = [np.zeros_like(value) for value in values]
        self.errors_of_averages = [np.zeros(value.shape) for value in values]
        self.bounds = configuration.max_weight
        self.backend = backend

    def copied(self) -> tuple[Arrays, Arrays]:
        """The values and their errors, as they are now."""
        return list(self.values), list(self.errors)

    def decay(self, rate: Any) -> None:
        """Decoupled weight decay of the variables that have a gradient."""
        decay = self.configuration.weight_decay
        if decay is None and self.configuration.rule.name == "AdamW":
            decay = 0.004
        if decay is None:
            return
        for place in self.configuration.present:
            value = self.values[place]
            # For an infinite weight the two forms differ.
            if self.backend == "torch":
                self.values[place] = value * (F(1) - F(decay) * rate)
            else:
                self.values[place] = value - value * F(decay) * rate
            self._round(place)

    def _round(self, place: int) -> None:
        self.errors[place] = self.errors[place] + 4 * ROUNDOFF * np.abs(self.values[place])

    def subtract(self, place: int, step: Step) -> None:
        """Take a step."""
        self.values[place] = self.values[place] - step.change
        self.errors[place] = self.errors[place] + step.error
        self._round(place)

    def bound(self, step: int) -> None:
        """Project all variables to their bounds."""
        if self.bounds is None:
            return
        for place, value in enumerate(self.values):
            limit = self._limit(place, step)
            if limit is None:
                continue
            held = F(max(limit, 0.0))
            clipped = np.clip(value, -held, held)
            # If a weight is beyond the bound by more than the error, both are at the bound.
            is_certain = np.abs(value) - self.errors[place] > held
            allowed = np.minimum(self.errors[place], 2.0 * held)
            self.errors[place] = np.where(is_certain, 4 * ROUNDOFF * held, allowed)
            self.values[place] = np.where(np.isnan(value), value, clipped)

    def _limit(self, place: int, step: int) -> Any:
        kind, bound, *other = self.bounds
        if kind == "fan_in":
            return value_of(bound, step) / np.sqrt(FAN_IN[place])
        if kind == "groups" and not re.fullmatch(".*head/.*", PATHS[place]):
            return value_of(other[0], step)
        return value_of(bound, step)

    def average(self, iterations: int) -> None:
        """Move the averages, and write them over the weights if it is time for that."""
        if self.configuration.ema is None:
            return
        momentum, frequency = self.configuration.ema
        share = F(momentum) if iterations else F(0)
        overwrites = frequency is not None and (iterations + 1) % frequency == 0
        for place, value in enumerate(self.values):
            average = share * self.averages[place] + (F(1) - share) * value
            error = share * self.errors_of_averages[place] + (1 - share) * self.errors[place]
            error = error + 4 * ROUNDOFF * (np.abs(average) + np.abs(value))
            self.averages[place], self.errors_of_averages[place] = average, error
            if self.backend == "jax" and frequency is not None:
                # A sum of both, one of them times 0: infinity becomes NaN.
                self.values[place] = average * F(overwrites) + value * F(not overwrites)
            elif overwrites:
                self.values[place] = average
            if overwrites:
                self.errors[place] = error

    def constrain(self) -> None:
        """Keras's NonNeg on one of the variables."""
        if self.configuration.constraint and CONSTRAINED in self.configuration.present:
            value = self.values[CONSTRAINED]
            self.values[CONSTRAINED] = value * (value >= 0)
