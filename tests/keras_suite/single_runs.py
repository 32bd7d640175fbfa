"""Run one Keras test by itself, and return its outcome."""

import unittest
import warnings


def failures_of(test_class: type[unittest.TestCase], name: str) -> list[str]:
    """Run one test outside pytest; return the tracebacks of its failures."""
    result = unittest.TestResult()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test_class(name).run(result)
    return [trace for _, trace in result.failures + result.errors]
