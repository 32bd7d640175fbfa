"""Patterns for variable paths."""

import re
from collections.abc import Iterable, Sequence

from keras_clip.types import Variable


def path_of(variable: Variable) -> str:
    """Return the path of a variable, or the name of a native variable of the backend."""
    return str(getattr(variable, "path", None) or getattr(variable, "name", ""))


class PathPatterns:
    """Patterns for variables, and the variables that each applies to.

    A pattern that equals the path wins. Otherwise the regular expression has to match the whole
    path, as in `re.fullmatch`.

    Args:
        what: name of the argument with the patterns, for messages.
        patterns: the patterns, each a str.
        may_overlap: bool, whether several patterns may match one path. Defaults to False.

    Raises:
        TypeError: a pattern is not a str.
        ValueError: a pattern is not a regular expression.
    """

    def __init__(
        self, what: str, patterns: Iterable[str] = (), *, may_overlap: bool = False
    ) -> None:
        self._what = what
        self._may_overlap = may_overlap
        self._expressions: dict[str, re.Pattern[str]] = {}
        self._pattern_of: dict[int, str | None] = {}
        self._paths: list[str] = []
        self._unused: list[str] = []
        for pattern in patterns:
            self.add(pattern)

    def add(self, pattern: str) -> None:
        """Add a pattern."""
        self._expressions[pattern] = _compiled(pattern, self._what)

    def build(self, variables: Sequence[Variable]) -> None:
        """Find the pattern of each variable.

        Raises:
            ValueError: two patterns match one path.
        """
        self._paths = [path_of(variable) for variable in variables]
        self._pattern_of = {
            id(variable): self._match(path)
            for variable, path in zip(variables, self._paths, strict=True)
        }
        # A pattern is redundant, not misspelled, if exact patterns take all of its paths.
        self._unused = [
            pattern
            for pattern, expression in self._expressions.items()
            if pattern not in self._paths and not any(map(expression.fullmatch, self._paths))
        ]

    def of(self, variable: Variable) -> str | None:
        """Return the pattern that applies to a variable, or None."""
        return self._pattern_of.get(id(variable))

    def check_all_used(self) -> None:
        """Raise if a pattern applies to no variable.

        Call it at a step, not in `build`: while Keras loads a model, it builds the optimizer
        with the variables that are trainable at that time, or with none.
        """
        if self._unused:
            raise ValueError(
                f"{self._what} has patterns that match no variable: {self._unused}. A pattern has "
                f"to match the whole path. The paths are: {self._paths}."
            )

    def _match(self, path: str) -> str | None:
        if path in self._expressions:
            return path
        matching = [pattern for pattern, e in self._expressions.items() if e.fullmatch(path)]
        if len(matching) > 1 and not self._may_overlap:
            raise ValueError(
                f"{self._what} has several patterns that match the variable {path!r}: {matching}. "
                "Narrow them down so that one is left, or name the path itself, which goes before "
                "patterns."
            )
        return matching[0] if matching else None


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise TypeError(
            f"{what} must name variables by str, a path or a regular expression for it. "
            f"Received: {pattern!r}."
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{what} has the pattern {pattern!r}, which is not a regular expression: {error}. "
            "Give the whole path of a variable, or escape special characters by re.escape."
        ) from error
