"""Which pattern applies to which variable path."""

import re
from collections.abc import Sequence
from typing import Any


def path_of(variable: Any) -> str:
    """Return the path of a variable; of a native one of the backend, its name."""
    return str(getattr(variable, "path", None) or getattr(variable, "name", ""))


def match_paths(patterns: Sequence[str], paths: Sequence[str], what: str) -> list[str | None]:
    """Return, for each path, the pattern that applies to it, or None.

    A pattern that is the path itself goes before all others; otherwise the regular expression
    has to match the whole path, as `re.fullmatch` does.

    Args:
        patterns: the patterns, each a str.
        paths: `variable.path` of each variable.
        what: name of the argument the patterns were given as, for messages.

    Raises:
        TypeError: a pattern is no str.
        ValueError: a pattern is no regular expression, applies to no path, or two of them
            match one path.
    """
    expressions = {pattern: _compiled(pattern, what) for pattern in patterns}
    matches = [_match(path, expressions, what) for path in paths]
    _check_all_used(expressions, paths, what)
    return matches


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
            f"{what} has the pattern {pattern!r}, which is no regular expression: {error}. "
            "Give the whole path of a variable, or escape special characters by re.escape."
        ) from error


def _match(path: str, expressions: dict[str, re.Pattern[str]], what: str) -> str | None:
    if path in expressions:
        return path
    matching = [pattern for pattern, e in expressions.items() if e.fullmatch(path)]
    if len(matching) > 1:
        raise ValueError(
            f"{what} has several patterns that match the variable {path!r}: {matching}. Narrow "
            "them down so that one is left, or name the path itself, which goes before patterns."
        )
    return matching[0] if matching else None


def _check_all_used(
    expressions: dict[str, re.Pattern[str]], paths: Sequence[str], what: str
) -> None:
    # A pattern whose only paths are named exactly as well is redundant, not misspelled.
    unused = [
        pattern
        for pattern, expression in expressions.items()
        if pattern not in paths and not any(expression.fullmatch(path) for path in paths)
    ]
    if unused:
        raise ValueError(
            f"{what} has patterns that match no variable: {unused}. A pattern has to match the "
            f"whole path. The paths are: {list(paths)}."
        )
