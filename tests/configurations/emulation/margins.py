"""How close the numbers of a run came to a decision."""

import math


class Margins:
    """The smallest relative distance of two compared numbers."""

    def __init__(self) -> None:
        self.smallest = math.inf

    def is_above(self, number: float, bound: float) -> bool:
        """Return whether `number > bound`; equal and non-finite numbers are certain."""
        number, bound = float(number), float(bound)
        if number != bound and math.isfinite(number) and math.isfinite(bound):
            distance = abs(number - bound) / max(abs(number), abs(bound))
            self.smallest = min(self.smallest, distance)
        return number > bound
