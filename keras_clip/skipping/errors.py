"""The errors of updates that are not applied, and their texts."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

# The reasons to skip an update, in the order of the entries of `skips_in_a_row`.
REASONS = (
    "gradients that are not finite",
    "a norm or loss above skip_above",
    "an overflow under the loss scale",
)

# Makes an error from the reasons and variables that it names.
MakeError: TypeAlias = Callable[[Sequence[str]], Exception]


class NonFiniteGradientError(FloatingPointError):
    """Gradients are NaN or infinite, with `nonfinite="raise"`."""


class TooManySkipsError(RuntimeError):
    """More updates in a row were skipped than `max_consecutive_skips` allows."""


def nonfinite_error(names: Sequence[str]) -> Exception:
    """Return the error of `nonfinite="raise"`, which names reasons and variables."""
    return NonFiniteGradientError(
        "Gradients are NaN or infinite, and nonfinite='raise'. The update was not applied."
        f"{_concerned(names)}"
    )


def skips_error(max_consecutive_skips: int, names: Sequence[str]) -> Exception:
    """Return the error of `max_consecutive_skips`, which names reasons and variables."""
    reasons = [reason for reason in REASONS if reason in names]
    because = f", because of {' and '.join(reasons)}" if reasons else ""
    return TooManySkipsError(
        f"More than max_consecutive_skips={max_consecutive_skips} updates in a row were "
        f"skipped{because}. The model does not learn any more. Lower the learning rate, look at "
        f"the data of these steps, or resume from an earlier checkpoint.{_concerned(names)}"
    )


def _concerned(names: Sequence[str]) -> str:
    if not names:  # TensorFlow puts this text into a graph and adds the names to it.
        return " Reasons and variables:"
    variables = [name for name in names if name not in REASONS]
    return f" Variables with such gradients: {', '.join(variables)}" if variables else ""
