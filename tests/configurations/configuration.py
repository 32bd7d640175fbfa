"""All choices of one draw; the repr makes the same case again."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Arguments: TypeAlias = tuple[tuple[str, Any], ...]

# Paths of the model in `product.py`, in order. Keras puts the model's name in front
# of a path, and leaves it out once the model is loaded.
PATHS = ("hidden/kernel", "hidden/bias", "head/kernel", "head/bias")
SHAPES = ((3, 2), (2,), (2, 1), (1,))
# Axes of one unit, and number of inputs of one output: of Dense layers, by the documentation.
UNIT_AXES = ((0,), (0,), (0,), (0,))
FAN_IN = (3, 3, 2, 2)
# The kernel of the first layer is the one with a constraint, if any has one.
CONSTRAINED = 0


@dataclass(frozen=True)
class Decay:
    """A threshold that is `keras.optimizers.schedules.ExponentialDecay`."""

    initial: float
    steps: int
    rate: float


@dataclass(frozen=True)
class Line:
    """A threshold that is a callable of the step: `start + slope * step`."""

    start: float
    slope: float


@dataclass(frozen=True)
class Learned:
    """A `skip_above` that is `Outliers`."""

    multiple: float
    window: int
    warm_up: int
    of: str


@dataclass(frozen=True)
class Rule:
    """An optimizer of Keras, without the arguments of all optimizers."""

    name: str
    arguments: Arguments = ()


@dataclass(frozen=True)
class Clip:
    """A clipper; the members of a `Chain`, `ObserveOnly` or `ClipperMap` are clippers again.

    `patterns` are those of a `ClipperMap`, whose last member is the default: None clips nothing.
    """

    kind: str
    arguments: Arguments = ()
    members: tuple["Clip | None", ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """A number to assign to a threshold right before a call.

    `owner` says whose: "skip_above", "max_weight" and "max_update_ratio" are the optimizer's; a
    tuple leads from the clipper to a member of a member.
    """

    call: int
    owner: str | tuple[int, ...]
    name: str
    value: float


@dataclass(frozen=True)
class Configuration:
    """One case: an optimizer with all its options, and its batches."""

    seed: tuple[int, int, int]
    mode: str
    rule: Rule
    learning_rate: float | Decay
    weight_decay: float | None
    ema: tuple[float, int | None] | None
    accumulation: int | None
    loss_scale: float | None
    clipper: Clip
    nonfinite: str
    max_consecutive_skips: int | None
    skip_above: Any
    max_weight: Any
    max_update_ratio: Any
    history_size: int
    missing: int | None
    constraint: bool
    batches: tuple[str, ...]
    assignments: tuple[Assignment, ...]
    resume: tuple[int, str] | None

    @property
    def present(self) -> list[int]:
        """Places of the variables that have a gradient."""
        return [place for place in range(len(SHAPES)) if place != self.missing]

    @property
    def reads_loss(self) -> bool:
        """Whether losses decide which updates are skipped."""
        return isinstance(self.skip_above, Learned) and self.skip_above.of != "norm"


def first_weights(configuration: Configuration) -> list[np.ndarray]:
    """The weights that training starts from."""
    generator = np.random.default_rng([*configuration.seed, 0])
    return [generator.normal(size=shape).astype("float32") for shape in SHAPES]


_SIZES = {"usual": 1.0, "nan": 1.0, "inf": 1.0, "zero": 0.0, "1e30": 1e30, "1e-30": 1e-30}


def gradients(configuration: Configuration, call: int) -> list[np.ndarray]:
    """Return the arguments of `apply` at a call: a gradient for every variable, with loss scale."""
    generator = np.random.default_rng([*configuration.seed, 1, call])
    kind = configuration.batches[call]
    if kind == "3e38":
        # float32 can hold each entry, but not their norm.
        sizes = [generator.uniform(2e38, 3e38, size=shape) for shape in SHAPES]
        arrays = [size * generator.choice([-1.0, 1.0], size=size.shape) for size in sizes]
    else:
        size = _SIZES[kind] * 10.0 ** generator.uniform(-1.0, 1.0)
        arrays = [generator.normal(size=shape) * size for shape in SHAPES]
    if kind in ("nan", "inf"):
        spoilt = arrays[generator.choice(configuration.present)].reshape(-1)
        bad = np.nan if kind == "nan" else np.inf * generator.choice([-1.0, 1.0])
        spoilt[generator.integers(spoilt.size)] = bad
    with np.errstate(over="ignore"):
        return [(array * (configuration.loss_scale or 1.0)).astype("float32") for array in arrays]


def loss(configuration: Configuration, call: int) -> np.float32 | None:
    """Return the argument `loss` of `apply` at a call, or None if no loss is read."""
    if not configuration.reads_loss:
        return None
    sign = np.random.default_rng([*configuration.seed, 2]).choice([-1.0, 1.0])
    generator = np.random.default_rng([*configuration.seed, 3, call])
    usual = sign * generator.normal(2.0, 0.3)
    spiked = usual + 50.0
    return np.float32(generator.choice([usual, spiked, np.nan], p=[0.8, 0.15, 0.05]))
