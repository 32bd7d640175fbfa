"""The update rules of Keras's optimizers, in float32, so that they overflow where Keras does.

Each returns the step to subtract from the weights, and how large each entry's own rounding may
be: the sum of the magnitudes that the step was added up from, times a relative error. Sums of
numbers of opposite signs keep the error of the larger one.
"""

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

# The unit roundoff of float32.
ROUNDOFF = 2.0**-24

# Roundings between a gradient and the step it makes: the unscaling, the average, the norm of
# eleven entries and its square root, the factor, the product, the moments, and the step. About
# twenty, of which each may be off by one unit; twice as many leave room for a compiler's order.
_ROUNDINGS = 40

Array = Any
F = np.float32


class Step(NamedTuple):
    """The step to subtract, and its error."""

    change: Array
    error: Array


class Rule:
    """An optimizer for variables of some shapes.

    Args:
        shapes: of the variables.
        is_torch: whether Keras has other formulas for the same rule.
        maximum: the backend's maximum of two arrays: of XLA's on TensorFlow, a NaN is lost.
        arguments: of the optimizer.
    """

    def __init__(self, shapes: Any, is_torch: bool, maximum: Any, **arguments: Any) -> None:
        self.is_torch = is_torch
        self.maximum = maximum
        self.arguments = {**self.DEFAULTS, **arguments}
        self.state = [
            {name: np.full(shape, start, "float32") for name, start in self.STATE.items()}
            for shape in shapes
        ]
        # The same moments of magnitudes: the errors of the true ones are relative to these.
        self.magnitudes = [dict.fromkeys(self.STATE, np.zeros(shape)) for shape in shapes]

    DEFAULTS: ClassVar[dict[str, Any]] = {}
    STATE: ClassVar[dict[str, float]] = {}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        """The step of a variable.

        Args:
            place: of the variable.
            gradient: float32.
            magnitude: float64, of the numbers that the gradient is a sum of.
            rate: learning rate, float32.
            count: number of updates before.
        """
        raise NotImplementedError

    def _average(self, old: Array, new: Array, share: float) -> Array:
        """A moving average in Keras's form; other forms differ at infinity."""
        if self.is_torch:
            return old * F(share) + new * F(1 - share)
        return old + (new - old) * F(1 - share)


class SGD(Rule):
    """Momentum, or none."""

    DEFAULTS: ClassVar = {"momentum": 0.0, "nesterov": False}
    STATE: ClassVar = {"momentum": 0.0}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        momentum, own = F(self.arguments["momentum"]), self.state[place]
        own["momentum"] = own["momentum"] * momentum - gradient * rate
        size = self.magnitudes[place]["momentum"] * momentum + magnitude * rate
        self.magnitudes[place]["momentum"] = size
        if not self.arguments["momentum"]:
            return Step(gradient * rate, _ROUNDINGS * ROUNDOFF * magnitude * rate)
        change = -own["momentum"]
        if self.arguments["nesterov"]:
            change = -(own["momentum"] * momentum - gradient * rate)
            size = size * momentum + magnitude * rate
        # An error in a moment lasts as long as the moment.
        lasting = 1.0 / (1.0 - momentum)
        return Step(change, _ROUNDINGS * ROUNDOFF * size * lasting)


class Adam(Rule):
    """Two moments; `amsgrad` keeps the largest second one."""

    DEFAULTS: ClassVar = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
    STATE: ClassVar = {"first": 0.0, "second": 0.0, "largest": 0.0}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        beta_1, beta_2 = self.arguments["beta_1"], self.arguments["beta_2"]
        own = self.state[place]
        one_less = F(1) - F(beta_1) ** F(count + 1)
        two_less = F(1) - F(beta_2) ** F(count + 1)
        alpha = rate * np.sqrt(two_less) / one_less
        own["first"] = self._average(own["first"], gradient, beta_1)
        own["second"] = self._average(own["second"], gradient * gradient, beta_2)
        second = own["second"]
        if self.arguments["amsgrad"]:
            own["largest"] = second = self.maximum(own["largest"], second)
        change = own["first"] * alpha / (np.sqrt(second) + F(self.arguments["epsilon"]))
        sizes = self.magnitudes[place]
        sizes["first"] = sizes["first"] * beta_1 + magnitude * (1 - beta_1)
        size = sizes["first"] * alpha / (np.sqrt(second) + F(self.arguments["epsilon"]))
        # 1 minus a power close to 1 leaves the rounding of the power.
        lost = 4 / float(two_less) + 4 / float(one_less)
        return Step(change, (_ROUNDINGS + lost) * ROUNDOFF * size)


class RMSprop(Rule):
    """Divides by a moving root mean square; `centered` by a standard deviation."""

    DEFAULTS: ClassVar = {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}
    STATE: ClassVar = {"square": 0.0, "momentum": 0.0, "average": 0.0}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        rho, momentum = F(self.arguments["rho"]), F(self.arguments["momentum"])
        new, own = F(1 - self.arguments["rho"]), self.state[place]
        own["square"] = rho * own["square"] + new * (gradient * gradient)
        divisor = own["square"] + F(self.arguments["epsilon"])
        lost = np.ones(gradient.shape)
        if self.arguments["centered"]:
            own["average"] = rho * own["average"] + new * gradient
            centre = own["average"] * own["average"]
            divisor = own["square"] - centre + F(self.arguments["epsilon"])
            # A variance that is the difference of two numbers keeps the errors of both.
            lost = (np.float64(own["square"]) + centre) / divisor
        increment = rate * gradient / np.sqrt(divisor)
        size = np.abs(rate * magnitude / np.sqrt(divisor)) * np.maximum(lost, 1.0)
        if not momentum:
            return Step(increment, _ROUNDINGS * ROUNDOFF * size)
        own["momentum"] = momentum * own["momentum"] + increment
        sizes = self.magnitudes[place]
        sizes["momentum"] = momentum * sizes["momentum"] + size
        lasting = 1.0 / (1.0 - momentum)
        return Step(own["momentum"], _ROUNDINGS * ROUNDOFF * sizes["momentum"] * lasting)


class Adagrad(Rule):
    """Divides by the root of the sum of all squares."""

    DEFAULTS: ClassVar = {"epsilon": 1e-7}
    STATE: ClassVar = {"sum": 0.1}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        own = self.state[place]
        own["sum"] = own["sum"] + gradient * gradient
        root = np.sqrt(own["sum"] + F(self.arguments["epsilon"]))
        return Step(rate * gradient / root, _ROUNDINGS * ROUNDOFF * (rate * magnitude / root))


class Lion(Rule):
    """The sign of an average."""

    DEFAULTS: ClassVar = {"beta_1": 0.9, "beta_2": 0.99}
    STATE: ClassVar = {"first": 0.0}

    def step(self, place: int, gradient: Array, magnitude: Array, rate: Any, count: int) -> Step:
        beta_1, beta_2 = self.arguments["beta_1"], self.arguments["beta_2"]
        own, sizes = self.state[place], self.magnitudes[place]
        decided = own["first"] * F(beta_1) + gradient * F(1 - beta_1)
        size = sizes["first"] * beta_1 + magnitude * (1 - beta_1)
        own["first"] = own["first"] * F(beta_2) + gradient * F(1 - beta_2)
        sizes["first"] = sizes["first"] * beta_2 + magnitude * (1 - beta_2)
        self.closest = min(getattr(self, "closest", math.inf), _closest_to_zero(decided, size))
        sign = np.sign(decided)
        if self.is_torch:
            # On torch, the sign of NaN is 0.
            sign = np.nan_to_num(sign)
        change = sign * rate
        return Step(change, 2 * ROUNDOFF * np.abs(change))


def _closest_to_zero(decided: Array, size: Array) -> float:
    """How near a sign was to changing, relative to the numbers that decide it."""
    known = np.isfinite(decided) & np.isfinite(size) & (size > 0) & (decided != 0)
    return float(np.min(np.abs(decided[known]) / size[known], initial=math.inf))


_RULES: dict[str, type[Rule]] = {
    "SGD": SGD,
    "Adam": Adam,
    "AdamW": Adam,
    "RMSprop": RMSprop,
    "Adagrad": Adagrad,
    "Lion": Lion,
}


def make(name: str, shapes: Any, is_torch: bool, maximum: Any, **arguments: Any) -> Rule:
    """The rule of an optimizer of Keras; see `Rule`."""
    return _RULES[name](shapes, is_torch, maximum, **arguments)
