"""`diagnose` on records that are unusual."""

import numpy as np
import pytest

from keras_clip import diagnose
from tests.diagnosis.test_diagnose import Recorded

pytestmark = pytest.mark.any_backend


def names(columns):
    return [finding.name for finding in diagnose(Recorded(columns)).findings]


def test_a_threshold_of_zero():
    columns = {"grad_norm": np.ones(50), "clip_threshold": np.zeros(50)}
    assert names(columns) == ["limiter"]
    assert "usually to 0 % of their length, so most" in str(diagnose(Recorded(columns)))


def test_a_variable_without_a_finite_norm():
    norms = {"step": np.arange(30), "a": np.ones(30), "b": np.full(30, np.nan), "c": np.ones(30)}
    columns = {"grad_norm": np.full(30, np.nan), "skipped": np.ones(30, bool)}
    columns |= {f"variables/{name}": column for name, column in norms.items()}
    assert names(columns) == ["overflow loop"]


def test_updates_that_were_taken_back_left_no_nan():
    norms = np.where(np.arange(40) < 20, 1.0, np.nan)
    assert names({"grad_norm": norms, "rolled_back": np.isnan(norms)}) == []


def test_updates_that_were_taken_back_are_no_growth():
    norms = np.where(np.arange(60) // 20 == 1, 1000.0, 1.0)
    assert "growing norms" not in names({"grad_norm": norms, "rolled_back": norms > 1})


def test_a_schedule_of_the_threshold_learned_nothing():
    columns = {"grad_norm": np.full(100, 0.5), "clip_threshold": np.geomspace(0.01, 1.0, 100)}
    assert names(columns) == []


def test_one_small_norm_at_the_start_is_no_growth():
    assert names({"grad_norm": np.array([1e-3] + [1.0] * 99)}) == []


def test_the_first_halvings_of_a_loss_scale_are_no_fault():
    halved = np.arange(100) < 5
    columns = {"grad_norm": np.where(halved, np.nan, 1.0), "skipped": halved}
    assert names(columns) == []
    assert names(
        {**columns, "skipped": np.roll(halved, 50), "grad_norm": np.roll(columns["grad_norm"], 50)}
    ) == ["frequent overflows"]
