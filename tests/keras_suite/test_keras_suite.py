"""Every optimizer test of Keras, with each optimizer wrapped at a threshold never reached.

`expectations` has the assertions around a test. `exceptions` lists the tests that fail, and why.
"""

import unittest

import pytest

from .expectations import add_expectations
from .private_copies import load_test_classes
from .shipped_files import shipped_test_files
from .stand_ins import Decision, each_by_itself, multi_optimizer_as_a_whole

# Keras's tests are not written for warnings as errors.
pytestmark = pytest.mark.filterwarnings("default")


def _wrapped_test_classes() -> dict[str, type[unittest.TestCase]]:
    found: dict[str, type[unittest.TestCase]] = {}
    for file in shipped_test_files():
        found |= _classes_of(file, each_by_itself, "Test")
    if "multi_optimizer_test" in shipped_test_files():
        found |= _classes_of("multi_optimizer_test", multi_optimizer_as_a_whole, "AsAWholeTest")
    return found


def _classes_of(file: str, decision: Decision, suffix: str) -> dict[str, type[unittest.TestCase]]:
    path = shipped_test_files()[file]
    bare = load_test_classes(path, None)
    wrapped = {
        name.removesuffix("Test") + suffix: test_class
        for name, test_class in load_test_classes(path, decision).items()
    }
    for (name, test_class), bare_class in zip(wrapped.items(), bare.values(), strict=True):
        add_expectations(name, test_class, bare_class)
    return wrapped


# pytest collects the test classes that it finds in a module.
globals().update(_wrapped_test_classes())
