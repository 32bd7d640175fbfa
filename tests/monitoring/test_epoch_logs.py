"""The numbers of an epoch, by hand; the report on the same run has the same numbers."""

import math

import numpy as np
import pytest

from keras_clip import ClipMonitor, ClippedOptimizer
from keras_clip.monitoring.clipping_summary import summarize
from keras_clip.monitoring.epoch_logs import epoch_logs
from tests.monitoring.records import make_record
from tests.support.models import data, make_model

NAN = math.nan


@pytest.mark.parametrize("clipper", ["auto_clip", "z_clip", "clip_by_global_norm"])
@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_the_last_batch_of_an_epoch_is_nan(clipper, nonfinite):
    inputs, targets = data()
    targets[-1] = np.nan
    monitor = ClipMonitor()
    model = make_model(ClippedOptimizer("sgd", clipper=clipper, nonfinite=nonfinite))
    logs = model.fit(
        inputs, targets, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor]
    ).history
    applied = ~monitor.record["skipped"]
    thresholds = monitor.record["clip_threshold"][applied]
    expected = [threshold for threshold in thresholds if not math.isnan(threshold)][-1]
    assert len(applied) == 6
    assert applied.all() == (nonfinite == "propagate")
    assert logs["clip_threshold"] == [expected]
    assert summarize(monitor).latest_threshold == expected


def test_skipped_updates_are_counted_and_change_no_other_number():
    norms, thresholds = [1.0, 4.0, 90.0, NAN, 2.0, np.inf], [3.0, 2.0, 9.0, NAN, 1.0, 8.0]
    skipped = [False, False, True, True, False, True]
    record = make_record(norms, thresholds, skipped)
    logs = epoch_logs(record, 1)
    assert logs == {
        "grad_norm": 3.0,
        "grad_norm_max": 4.0,
        "grad_norm_clipped": 1.5,
        "clipped_fraction": 1.0,
        "skipped_steps": 3,
        "clip_threshold": 1.0,
    }
    assert summarize(record).latest_threshold == 1.0


@pytest.mark.parametrize("thresholds", [5.0, NAN])
def test_an_epoch_without_applied_updates_is_nan(thresholds):
    record = make_record([1.0, 2.0], thresholds, [False, True])
    for start in (1, 2):
        logs = epoch_logs(record, start)
        assert logs.pop("skipped_steps") == 2 - start
        assert len(logs) == 5
        assert all(map(math.isnan, logs.values()))


def test_a_threshold_that_was_in_the_logs_stays_there():
    record = make_record([1.0, NAN], [5.0, NAN])
    assert math.isnan(epoch_logs(record, 1)["clip_threshold"])
    assert epoch_logs(record, 0)["clip_threshold"] == 5.0


def test_where_nothing_tells_what_was_clipped_the_share_is_nan():
    record = make_record([NAN, NAN], 5.0)
    assert math.isnan(epoch_logs(record, 0)["clipped_fraction"])
    assert summarize(record).clipped_fraction is None


def test_a_clipper_without_a_threshold_has_none_in_the_logs():
    assert "clip_threshold" not in epoch_logs(make_record([1.0, 2.0], NAN), 0)
