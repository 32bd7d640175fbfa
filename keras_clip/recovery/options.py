"""The arguments of `RollBack`, checked."""

from dataclasses import dataclass
from typing import Any

from keras_clip.arguments.hyperparameters import check_count
from keras_clip.arguments.thresholds import check_number


@dataclass(frozen=True)
class Options:
    """The arguments of `RollBack`, which describes them."""

    every: int
    snapshots: int
    patience: int
    multiple: float
    window: int
    learning_rate_factor: float | None
    learning_rate_steps: int | None
    max_rollbacks: int


def check_factor(factor: Any) -> float | None:
    """Return the argument `learning_rate_factor`, or raise."""
    if factor is None:
        return None
    accepted = "a number above 0 and at most 1, or None"
    if check_number("learning_rate_factor", factor, accepted, maximum=1.0) == 0:
        raise ValueError(
            f"learning_rate_factor must be {accepted}. Received: learning_rate_factor={factor!r}."
        )
    return float(factor)


def check_steps(steps: Any, factor: Any) -> int | None:
    """Return the argument `learning_rate_steps`, or raise."""
    if steps is None:
        return None
    if factor is None:
        raise ValueError(
            "learning_rate_steps is the number of batches with a lower learning rate. Give "
            f"learning_rate_factor as well. Received: learning_rate_steps={steps!r}."
        )
    return check_count("learning_rate_steps", steps, minimum=1)
