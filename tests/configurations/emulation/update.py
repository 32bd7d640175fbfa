"""The input of the emulated clippers, and their shared functions."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tests.configurations.emulation.margins import Margins
from tests.configurations.emulation.numbers import LARGEST, norm

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Update:
    """Whole-batch gradients in float64, the places of their variables, and the weights."""

    gradients: Arrays
    places: list[int]
    weights: Arrays
    step: int
    margins: Margins

    @property
    def norm(self) -> float:
        """The global norm; of finite gradients it counts as 3.4e38 at most."""
        return held(norm(self.gradients))

    def having(self, gradients: Arrays) -> "Update":
        """The same update with other gradients."""
        return replace(self, gradients=gradients)

    def subset(self, chosen: list[int]) -> "Update":
        """The update of some of the gradients."""
        return replace(
            self,
            gradients=[self.gradients[index] for index in chosen],
            places=[self.places[index] for index in chosen],
            weights=[self.weights[index] for index in chosen],
        )


def held(number: float) -> float:
    """Return a norm within the range of float32: finite for finite gradients."""
    return min(number, LARGEST) if math.isfinite(number) else number


def scaled(
    gradients: Arrays, size: float, limit: float, margins: Margins, p: float = 2.0
) -> Arrays:
    """`g * min(1, limit / size)`: all NaN if the size is not finite, unless nothing is limited."""
    limit = max(limit, 0.0) if not math.isnan(limit) else limit
    above = margins.is_above(size, limit)
    if math.isinf(limit) or (not above and not math.isnan(size) and not math.isnan(limit)):
        return list(gradients)
    if not math.isfinite(size):
        return [gradient * math.nan for gradient in gradients]
    if size >= LARGEST:
        # Clipped gradients have the norm of the limit, even if float32 cannot hold the norm before.
        size = norm(gradients, p)
    return [gradient * (limit / size) for gradient in gradients]
