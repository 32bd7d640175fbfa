"""How close the numbers of a run came to where something is decided."""

import math


class Margins:
    """The smallest relative distance of two numbers that were compared."""

    def __init__(self) -> None:
        self.smallest = math.inf

    def is_above(self, number: float, bound: float) -> bool:
        """Whether `number > bound`; equal numbers, and those that are not finite, are certain."""
        number, bound = float(number), float(bound)
        if number != bound and math.isfinite(number) and math.isfinite(bound):
            distance = abs(number - bound) / max(abs(number), abs(bound))
            self.smallest = min(self.smallest, distance)
        return number > bound
