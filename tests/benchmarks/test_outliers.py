"""The count of skipped updates on a task."""

import keras
import pytest

if keras.config.backend() != "jax":
    pytest.skip("the count is a program of JAX", allow_module_level=True)

from benchmarks.outliers import train


@pytest.mark.exhaustive
def test_corrupted_updates_are_skipped():
    found = train("dense_digits_corrupted", "adam", seed=0, steps=300)
    assert found["good"] + found["corrupted"] == 300
    assert found["good_skipped"] == 0
    assert 0 < found["corrupted_skipped"] == found["corrupted"]
