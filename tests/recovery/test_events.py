"""Rollbacks are seen in the record, its file, TensorBoard, the picture and the report."""

import keras
import numpy as np
import pytest

from keras_clip import ClipMonitor, ClippedOptimizer, RollBack, plot_clipping
from keras_clip.diagnosis.report import summary_text
from keras_clip.monitoring.clipping_summary import summarize
from keras_clip.monitoring.record_csv import read_csv
from keras_clip.monitoring.skipped_batches import SkippedBatches
from tests.monitoring.records import make_record
from tests.recovery.test_roll_back import batches, fit, make_model
from tests.support.gradient_stream import apply_all
from tests.support.stores import load, saved


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of eight batches; weights turn bad in batch 4 of the first and 7 of the second.

    Each batch is checked, and the state before the batch that precedes the bad one comes back.
    The last check is at the end of an epoch, after the monitor has read its rows.
    """
    folder = tmp_path_factory.mktemp("run")

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            if (self.epoch, batch) in ((0, 4), (1, 7)):
                self.model.trainable_variables[0].assign(np.full((4, 6), np.nan))

    tensorboard = None
    if keras_is_newest():
        tensorboard = folder / "tensorboard"
    monitor = ClipMonitor(csv=folder / "run.csv", tensorboard=tensorboard)
    roll_back = RollBack(every=1, check_every=1, patience=1)
    fit(make_model(), *batches(8), [monitor, roll_back, Spoil()], epochs=2)
    return folder, monitor, roll_back


def keras_is_newest():
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def test_events_name_the_epoch_and_the_batch(run):
    _, _, roll_back = run
    found = [(e["step"], e["restored_step"], e["epoch"], e["batch"]) for e in roll_back.events]
    assert found == [(5, 3, 0, 4), (16, 14, 1, 7)]


def test_the_record_and_its_file_mark_what_was_taken_back(run):
    folder, monitor, _ = run
    marked = np.isin(np.arange(16), [3, 4, 14, 15])
    for record in (monitor.record, read_csv(folder / "run.csv")):
        np.testing.assert_array_equal(record["step"], np.arange(16))
        np.testing.assert_array_equal(record["rolled_back"], marked)
    assert np.isnan(monitor.record["grad_norm"][[4, 15]]).all()
    assert not monitor.record["skipped"].any()


def test_tensorboard(run):
    pytest.importorskip("tensorboard", reason="the oldest Keras is tested without")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0] / "tensorboard" / "clipping")).Reload()
    points = events.Tensors("clipping/rolled_back")
    assert [point.step for point in points] == [3, 4, 14, 15]
    assert {point.tensor_proto.float_val[0] for point in points} == {1.0}


def test_the_report_and_the_picture(run):
    pytest.importorskip("matplotlib", reason="the oldest Keras is tested without")
    assert "rolled back       4" in summary_text(summarize(run[1]))
    figure = plot_clipping(run[1])
    assert ",  rolled back: 4" in figure.get_suptitle()
    areas = [p.get_x() for p in figure.axes[0].patches]
    ends = [p.get_x() + p.get_width() for p in figure.axes[0].patches]
    assert (areas, ends) == ([2.5, 13.5], [4.5, 15.5])
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels.count("rolled back") == 1
    assert "rolled back" not in plot_clipping({"grad_norm": [1.0, 2.0]}).get_suptitle()


def test_rows_may_be_marked_twice_and_may_be_gone():
    optimizer = ClippedOptimizer("sgd", history_size=4)
    variable = keras.Variable([0.0])
    apply_all(optimizer, [variable], [[np.float32([norm])] for norm in range(6)])
    assert optimizer.recorded_updates == 6
    optimizer.mark_rolled_back(5)
    optimizer.mark_rolled_back(4)
    assert optimizer.history["rolled_back"].tolist() == [False, False, True, True]
    optimizer.mark_rolled_back(0)
    assert optimizer.history["rolled_back"].all()
    assert optimizer.history["grad_norm"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert not optimizer.history["skipped"].any()


def test_without_a_history_there_is_nothing_to_mark():
    optimizer = ClippedOptimizer("sgd", history_size=0)
    apply_all(optimizer, [keras.Variable([0.0])], [[np.float32([1.0])]])
    optimizer.mark_rolled_back(optimizer.recorded_updates)
    assert optimizer.history["rolled_back"].size == 0


def test_unknown_rows_are_not_marked():
    """A file of a shorter history has no rows of earlier updates."""
    short, longer = (ClippedOptimizer("sgd", history_size=size) for size in (2, 10))
    variable = keras.Variable([0.0])
    apply_all(short, [variable], [[np.float32([norm])] for norm in range(5)])
    longer.build([variable])
    load(longer, saved(short))
    longer.mark_rolled_back(0)
    assert longer.history["step"].tolist() == [3, 4]
    assert longer.history["rolled_back"].all()


@pytest.mark.parametrize(("steps", "expected"), [(None, [0, 2, 4]), (2, [1, -1, -1])])
def test_the_batch_of_a_skip_after_a_rollback(steps, expected):
    """A rollback sets back the number of micro-batches, so later rows have no batch."""
    places = SkippedBatches(
        ClippedOptimizer(keras.optimizers.SGD(gradient_accumulation_steps=steps))
    )
    record = make_record(np.ones(5), 1.0, np.array([True, False, True, False, True]))
    record["rolled_back"][1] = True
    places.start_epoch(0, first_step=0)
    places.add(record, is_scaled=False)
    assert places.columns["batch"].tolist() == expected
