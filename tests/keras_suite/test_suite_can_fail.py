"""Keras's tests notice a wrapper that changes gradients, and only that."""

import unittest
from collections.abc import Callable
from typing import Any

import pytest

from keras_clip.applying import Applying

from .private_copies import load_test_classes
from .shipped_files import shipped_test_files
from .single_runs import failures_of
from .stand_ins import each_by_itself
from .tally import counting

pytestmark = pytest.mark.any_backend

STEPS_AND_GRADIENTS = 6
GOLDEN = "test_correctness_with_golden"


@pytest.fixture(scope="module")
def golden_classes() -> dict[str, type[unittest.TestCase]]:
    """Classes with a test that compares six steps to known weights."""
    found: dict[str, type[unittest.TestCase]] = {}
    for path in shipped_test_files().values():
        found |= load_test_classes(path, each_by_itself)
    return {name: c for name, c in found.items() if hasattr(c, GOLDEN)}


def _failing(classes: dict[str, type[unittest.TestCase]]) -> set[str]:
    return {name for name, c in classes.items() if failures_of(c, GOLDEN)}


def _change_clipped(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    clip = Applying._clip

    def broken(self: Applying, batch: Any, losses: Any) -> Any:
        clipped, skip = clip(self, batch, losses)
        return [change(gradient) for gradient in clipped], skip

    monkeypatch.setattr(Applying, "_clip", broken)


def test_each_golden_test_makes_a_wrapper_and_clips_all_its_steps(golden_classes):
    assert len(golden_classes) >= 12
    with counting() as tally:
        assert _failing(golden_classes) == set()
    assert tally.wrappers == len(golden_classes)
    assert tally.clips == tally.updates == STEPS_AND_GRADIENTS * len(golden_classes)


def test_all_golden_tests_notice_gradients_of_the_wrong_sign(golden_classes, monkeypatch):
    _change_clipped(monkeypatch, lambda gradient: -gradient)
    assert _failing(golden_classes) == golden_classes.keys()


def test_golden_tests_of_optimizers_with_a_scale_notice_doubled_gradients(
    golden_classes, monkeypatch
):
    _change_clipped(monkeypatch, lambda gradient: 2.0 * gradient)
    failing = _failing(golden_classes)
    assert failing >= {"AdagradTest", "AdamWTest", "FtrlTest", "SGDTest"}
    # It divides by the gradients' own size.
    assert "AdamTest" in golden_classes.keys() - failing
