"""The tests to run depend on the wheel of Keras."""

import unittest

import keras

from . import test_exceptions_without_wrapper, test_keras_suite
from .exceptions import EXCEPTIONS, MAKE_NOTHING_TO_WRAP
from .shipped_files import FIRST_VERSION_WITH_TESTS, INSTALLED_VERSION, shipped_test_files

# The nightly wheels hold no test files.
SHIPS_TESTS = INSTALLED_VERSION >= FIRST_VERSION_WITH_TESTS and "dev" not in keras.__version__


def _collected(module: object) -> set[str]:
    classes = {k: v for k, v in vars(module).items() if isinstance(v, type)}
    return {
        f"{name}::{method}"
        for name, test_class in classes.items()
        if issubclass(test_class, unittest.TestCase)
        for method in unittest.defaultTestLoader.getTestCaseNames(test_class)
    }


def test_keras_ships_its_optimizer_tests_exactly_from_the_known_version_on():
    assert bool(shipped_test_files()) == SHIPS_TESTS, (
        f"Keras {INSTALLED_VERSION} was expected to ship "
        f"{'its optimizer tests' if SHIPS_TESTS else 'no tests, as before 3.15.1'}, and the "
        f"files found are {list(shipped_test_files())}. What this folder asserts about "
        "wrapped optimizers is asserted on versions that ship them only."
    )


def test_all_of_them_are_collected_or_nothing_is():
    collected = _collected(test_keras_suite)
    without_wrapper = _collected(test_exceptions_without_wrapper)
    if not SHIPS_TESTS:
        assert collected | without_wrapper == set()
        return
    assert len(shipped_test_files()) >= 18
    assert len(collected) >= 245
    assert collected >= EXCEPTIONS.keys() | MAKE_NOTHING_TO_WRAP.keys()
    assert without_wrapper == {test_id.replace("AsAWholeTest", "Test") for test_id in EXCEPTIONS}
