"""The assertions around each of Keras's tests when optimizers are wrapped."""

import functools
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from .exceptions import EXCEPTIONS, MAKE_NOTHING_TO_WRAP, Failure
from .single_runs import failures_of
from .tally import Tally, counting

TestMethod = Callable[[unittest.TestCase], Any]


def add_expectations(
    name: str, test_class: type[unittest.TestCase], bare_class: type[unittest.TestCase]
) -> None:
    """Add the expectations to every test of `test_class`.

    A listed test has to fail as listed. Any other has to pass, with its optimizers wrapped
    and every update of theirs clipped.

    Args:
        name: name of the class in the tables.
        test_class: the class whose optimizers are wrapped; changed in place.
        bare_class: the same without wrappers, to tell whose fault a failure is.
    """
    for method in unittest.defaultTestLoader.getTestCaseNames(test_class):
        test_id = f"{name}::{method}"
        test = getattr(test_class, method)
        if test_id in EXCEPTIONS:
            expected = _fails(test, EXCEPTIONS[test_id])
        else:
            expected = _passes_wrapped(test, test_id, bare_class)
        setattr(test_class, method, expected)


def _fails(test: TestMethod, failure: Failure) -> TestMethod:
    @functools.wraps(test)
    def fails(self: unittest.TestCase) -> None:
        with self.assertRaisesRegex(failure.error, failure.message):
            test(self)
        pytest.xfail(failure.reason)

    return fails


def _passes_wrapped(
    test: TestMethod, test_id: str, bare_class: type[unittest.TestCase]
) -> TestMethod:
    @functools.wraps(test)
    def passes(self: unittest.TestCase) -> None:
        with counting() as tally:
            try:
                test(self)
            except Exception as error:
                if failures_of(bare_class, test.__name__):
                    error.add_note(f"{test_id} fails without the wrapper too.")
                raise
        _check_tally(tally, test_id)

    return passes


def _check_tally(tally: Tally, test_id: str) -> None:
    asked_for_wrapped = tally.requests > 0
    assert asked_for_wrapped != (test_id in MAKE_NOTHING_TO_WRAP), (test_id, tally)
    if test_id.startswith("MultiOptimizerAsAWholeTest"):
        # One clip for the updates of all members.
        assert (tally.clips > 0) == (tally.updates > 0), (test_id, tally)
        assert tally.clips <= tally.updates, (test_id, tally)
    else:
        assert tally.clips == tally.updates, (test_id, tally)
