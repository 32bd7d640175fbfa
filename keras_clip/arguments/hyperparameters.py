"""Checks of constructor arguments that never change."""

import numbers
import sys
from collections.abc import Sequence
from typing import Any

from keras_clip.arguments.thresholds import check_number


def check_finite(name: str, value: Any) -> float:
    """Return `value` as a finite float of at least 0, or raise."""
    accepted = "a finite number that is at least 0"
    return check_number(name, value, accepted, maximum=sys.float_info.max)


def check_count(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`, or raise."""
    message = f"{name} must be an int that is at least {minimum}. Received: {name}={value!r}."
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(message)
    if value < minimum:
        raise ValueError(message)
    return int(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`, or raise."""
    message = f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}."
    if not isinstance(value, str):
        raise TypeError(message)
    if value not in choices:
        raise ValueError(message)
    return value


def check_flag(name: str, value: Any) -> bool:
    """Return `value` if it is a bool, or raise."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False. Received: {name}={value!r}.")
    return value
