"""The counts of a record, by hand."""

import numpy as np
import pytest

from keras_clip.monitoring.clipping_summary import PERCENTS, percent, summarize
from tests.monitoring.records import lognormal_norms, make_record


def test_counts():
    norms = [0.5, 2.0, 4.0, np.nan, np.inf, 8.0, np.inf]
    skipped = [False, False, False, False, True, True, False]
    summary = summarize(make_record(norms, 1.0, skipped))
    assert (summary.updates, summary.applied, summary.skipped) == (7, 5, 2)
    assert summary.nonfinite == 3
    # 2, 4 and the applied infinite one; for a NaN the answer is unknown.
    assert summary.clipped == 3
    assert summary.clipped_fraction == 3 / 5
    assert summary.percentiles[50] == 2.0
    assert summary.percentiles[100] == 4.0
    assert summary.latest_threshold == 1.0


def test_percentiles_are_numpys():
    norms = lognormal_norms(1000)
    found = summarize({"grad_norm": norms}).percentiles
    assert found == {percent: np.percentile(norms, percent) for percent in PERCENTS}


def test_what_a_record_does_not_tell():
    summary = summarize({"grad_norm": [1.0, 2.0]})
    assert summary.clipped is None
    assert summary.clipped_fraction is None
    assert summary.latest_threshold is None


def test_no_updates_and_none_applied():
    for record in (make_record([]), make_record([1.0, 2.0], 1.0, True)):
        summary = summarize(record)
        assert summary.clipped_fraction is None
        assert summary.percentiles == {}


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-9, "less than 0.01 %"),
        (0.0012, "0.12 %"),
        (0.055, "5.5 %"),
        (0.344, "34 %"),
        (0.9949, "99.49 %"),
        (1 - 1e-9, "99.99 %"),
        (1.0, "100 %"),
    ],
)
def test_only_none_is_0_and_only_all_is_100(share, text):
    assert percent(share) == text
