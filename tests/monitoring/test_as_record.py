"""Every form of a record that a user has gives the same record."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, suggest_max_norm
from keras_clip.monitoring.as_record import as_record
from keras_clip.monitoring.record_csv import write_csv
from tests.monitoring.records import lognormal_norms, make_record

RECORD = make_record(lognormal_norms(100), 1.5)


class Table:
    """A DataFrame's part of the mapping interface, and no more."""

    def __init__(self, columns):
        self._columns = columns

    def keys(self):
        return list(self._columns)

    def __getitem__(self, name):
        return self._columns[name]


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def assert_is_record(found, expected=RECORD):
    assert list(found) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)


@pytest.fixture
def history(monkeypatch):
    """Give all wrappers the history RECORD."""
    monkeypatch.setattr(ClippedOptimizer, "history", property(lambda self: RECORD), raising=False)


def fitted(optimizer):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse")
    return model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)


class TestAccepted:
    @pytest.mark.parametrize("source", [RECORD, Table(RECORD), Holder(record=RECORD)])
    def test_records_and_what_has_one(self, source):
        assert_is_record(as_record(source))

    def test_a_path(self, tmp_path):
        write_csv(RECORD, tmp_path / "run.csv")
        assert_is_record(as_record(tmp_path / "run.csv"))
        assert_is_record(as_record(str(tmp_path / "run.csv")))

    def test_a_real_data_frame(self):
        pandas = pytest.importorskip("pandas")
        assert_is_record(as_record(pandas.DataFrame(RECORD)))

    def test_what_fit_returns(self, history):
        returned = fitted(ClippedOptimizer("sgd"))
        # As ClipMonitor leaves it: the logs are means over epochs and not the record.
        returned.history["grad_norm"] = [1.0]
        assert_is_record(as_record(returned))

    def test_optimizers(self, history):
        optimizer = ClippedOptimizer("sgd")
        assert_is_record(as_record(optimizer))
        assert_is_record(as_record(keras.optimizers.LossScaleOptimizer(optimizer)))


class TestFilledIn:
    def test_norms_alone(self):
        norms = [1.0, np.nan, 4.0]
        record = as_record({"grad_norm": norms})
        assert record["step"].tolist() == [0, 1, 2]
        assert not record["skipped"].any()
        assert np.isnan(record["clip_threshold"]).all()
        assert np.isnan(record["clip_scale"]).all()

    def test_the_scale_follows_from_the_threshold(self):
        norms, thresholds = [1.0, 4.0, np.nan, np.inf, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0, 0.0, np.nan]
        record = as_record({"grad_norm": norms, "clip_threshold": thresholds})
        np.testing.assert_array_equal(record["clip_scale"], [1.0, 0.5, np.nan, np.nan, 1.0, np.nan])

    def test_skipped_as_zeros_and_ones(self):
        record = as_record({"grad_norm": [1.0, 2.0], "skipped": [0, 1]})
        assert record["skipped"].tolist() == [False, True]


class TestRefused:
    @pytest.mark.parametrize("source", [None, 1.0, [1.0, 2.0], np.ones(30), object()])
    def test_other_things(self, source):
        message = "Expected a record .* CSV file, a ClipMonitor, a ClippedOptimizer, or the History"
        with pytest.raises(TypeError, match=message):
            suggest_max_norm(source)

    def test_means_over_epochs(self):
        means = {"loss": [1.0], "grad_norm": [1.0], "grad_norm_max": [2.0]}
        with pytest.raises(ValueError, match=r"means over epochs.*Pass what model\.fit returned"):
            as_record(means)

    def test_another_column(self):
        with pytest.raises(ValueError, match=r"a column 'grad_norm'.*\['norm'\]"):
            as_record({"norm": [1.0]})

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"grad_norm": ["a"]}, "numbers in the column 'grad_norm'"),
            ({"grad_norm": [1.0, -1.0]}, "at least 0. Received grad_norm=-1.0"),
            ({"grad_norm": [1.0], "skipped": [True, True]}, r"one length.*\(2,\)"),
            ({"grad_norm": [[1.0]]}, r"1-D.*\(1, 1\)"),
        ],
    )
    def test_columns_that_make_no_record(self, columns, message):
        with pytest.raises(ValueError, match=message):
            as_record(columns)

    def test_a_model_without_a_wrapper(self):
        with pytest.raises(ValueError, match=r"compiled with SGD, which keeps no norms.*max_norm="):
            as_record(fitted("sgd"))

    def test_several_wrappers_are_named(self, history):
        pair = [ClippedOptimizer("sgd", name="one"), ClippedOptimizer("sgd", name="two")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "keras_clip.monitoring.clipped_optimizers.members_of", lambda optimizer: pair
            )
            with pytest.raises(ValueError, match=r"2 ClippedOptimizers, one, two, each"):
                as_record(keras.optimizers.SGD())
