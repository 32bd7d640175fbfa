"""The measurements of `max_update_ratio` in logs, record, files, report and picture."""

from pathlib import Path

import keras
import numpy as np
import pytest

from keras_clip import ClipMonitor, ClippedOptimizer, plot_clipping
from keras_clip.diagnosis.report import report
from keras_clip.monitoring.clipping_summary import summarize
from keras_clip.monitoring.record_csv import read_csv, read_variables_csv, write_csv
from tests.monitoring.records import lognormal_norms, make_record
from tests.monitoring.test_agreement import events_in
from tests.support.models import fit, make_model

RATIO = 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(0.02), max_norm=float("inf"), max_update_ratio=RATIO
    )
    model = make_model(optimizer)
    monitor = ClipMonitor(csv=folder / "record.csv", tensorboard=folder / "logs")
    weights = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append([np.array(v.numpy()) for v in self.model.trainable_variables])

    weights.append([np.array(v.numpy()) for v in model.trainable_variables])
    logs = fit(model, epochs=3, callbacks=[monitor, Keep()])
    return folder, monitor, logs.history, weights


def norm(arrays):
    return float(np.sqrt(sum(np.sum(np.square(np.float64(array))) for array in arrays)))


def test_record_is_what_the_weights_say(run):
    _, monitor, _, weights = run
    record = monitor.record
    for old, new, ratio, scale in zip(
        weights[:-1], weights[1:], record["update_ratio"], record["update_scale"], strict=True
    ):
        change = [after - before for before, after in zip(old, new, strict=True)]
        assert ratio * scale == pytest.approx(norm(change) / norm(old), rel=1e-4)
        assert (scale < 1) == (ratio > RATIO)
    assert 0.1 < np.mean(record["update_scale"] < 1) < 0.9


def test_logs_are_those_of_the_record(run):
    _, monitor, logs, _ = run
    for epoch in range(3):
        rows = slice(6 * epoch, 6 * epoch + 6)
        ratios = monitor.record["update_ratio"][rows]
        assert logs["update_ratio"][epoch] == pytest.approx(ratios.mean())
        assert logs["update_ratio_max"][epoch] == ratios.max()
        limited = monitor.record["update_scale"][rows] < 1
        assert logs["limited_fraction"][epoch] == limited.mean()


def test_without_a_limit_there_are_no_such_logs():
    logs = fit(make_model(ClippedOptimizer("sgd")), callbacks=[ClipMonitor()]).history
    assert not {"update_ratio", "update_ratio_max", "limited_fraction"} & {*logs}


def test_file_and_events_are_the_record(run):
    folder, monitor, _, _ = run
    read = read_csv(folder / "record.csv")
    assert list(read) == list(monitor.record)
    for name, column in monitor.record.items():
        np.testing.assert_array_equal(read[name], column)
    scalars, _ = events_in(folder / "logs" / "clipping")
    for name in ("update_ratio", "update_scale"):
        _, values = zip(*scalars[f"clipping/{name}"], strict=True)
        np.testing.assert_allclose(values, monitor.record[name], rtol=1e-6)


def test_an_epoch_of_skipped_updates(tmp_path):
    optimizer = ClippedOptimizer("sgd", nonfinite="skip", max_update_ratio=RATIO)
    model = make_model(optimizer)
    inputs = np.full((16, 4), np.nan, "float32")
    logs = model.fit(inputs, inputs[:, :1], verbose=0, callbacks=[ClipMonitor()]).history
    assert all(np.isnan(logs[name][0]) for name in ("update_ratio", "limited_fraction"))
    write_csv(optimizer.history, tmp_path / "record.csv")
    assert np.isnan(read_csv(tmp_path / "record.csv")["update_ratio"]).all()


def limited_record(count, share):
    ratios = lognormal_norms(count, median=0.01, seed=1)
    scale = np.where(np.arange(count) < share * count, 0.5, 1.0)
    record = make_record(lognormal_norms(count), thresholds=2.0)
    return {**record, "update_ratio": ratios, "update_scale": scale}


@pytest.mark.parametrize(("share", "is_said"), [(0.5, False), (0.96, True), (1.0, True)])
def test_report_says_when_the_ratio_is_the_learning_rate(share, is_said, tmp_path, capsys):
    write_csv(limited_record(100, share), tmp_path / "record.csv")
    report(tmp_path / "record.csv")
    printed = capsys.readouterr().out
    assert f"limited by max_update_ratio  {100 * share:.0f} % of those applied" in printed
    assert ("it is the learning rate now" in printed) == is_said


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_picture_has_a_panel_for_the_ratio(count, tmp_path):
    record = limited_record(count, 0.5)
    figure = plot_clipping(record, path=tmp_path / "picture.png")
    (panel,) = (axes for axes in figure.axes if axes.get_ylabel() == "update\nratio")
    (line,) = panel.get_lines()
    after = record["update_ratio"] * record["update_scale"]
    assert np.max(line.get_ydata()) == np.max(after)
    assert (
        f"limited: {100 * summarize(record).limited_fraction:.0f} %" in figure._suptitle.get_text()
    )
    assert (tmp_path / "picture.png").exists()


def test_a_record_is_no_variable_record(run):
    folder, _, _, _ = run
    with pytest.raises(ValueError, match="paths of variables"):
        read_variables_csv(Path(folder) / "record.csv")
