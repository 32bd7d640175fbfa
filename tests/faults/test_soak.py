"""Thousands of steps on bad data harm nothing."""

import keras
import pytest

from tests.distribution.processes import results_of

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="MirroredStrategy"),
]


def test_soak():
    steps = 2000
    found = results_of("tests.faults.soak_program", str(steps))[0]
    injected = found["injected"]
    assert all(count > steps / 40 for count in injected.values())
    bad = injected["nan"] + injected["infinity"]
    assert found["skipped_steps"] == bad
    assert found["iterations"] == found["steps"] - bad
    assert found["finite"]
    assert found["loss"][1] < 0.5 * found["loss"][0]
    assert found["identical_to_good_batches_only"]
    # Growth over three quarters of the steps: no tensor of any step is kept.
    assert found["memory_growth"] < 8 * 2**20
