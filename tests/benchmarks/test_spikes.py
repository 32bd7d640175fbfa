"""The gain on data with spikes, on a short run."""

import numpy as np
import pytest

from benchmarks.spikes import FIRST_BAD, STRETCH, corrupted, train

pytestmark = [pytest.mark.exhaustive, pytest.mark.any_backend]


def test_corrupted_updates_are_skipped_and_no_others():
    bad = corrupted(seed=0, steps=400)
    assert not bad[:FIRST_BAD].any()
    assert STRETCH <= bad.sum() <= STRETCH + 4
    assert "1" * STRETCH in "".join(map(str, bad.astype(int)))
    found = train(0, bad, "both")
    assert found["bad_skipped"] == found["corrupted"] == bad.sum()
    assert found["good_skipped"] == 0
    # All weights survive: without a guard the loss is several times as large.
    assert found["loss"] < 1.1 * train(0, np.zeros_like(bad), "max_norm=1")["loss"]
