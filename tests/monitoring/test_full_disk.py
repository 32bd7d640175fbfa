"""A full disk: an error that names the file, nothing damaged, and a later write is whole."""

import os
import resource
import sys
import threading
from contextlib import contextmanager

import keras
import numpy as np
import pytest

from keras_clip import ClipMonitor, ClippedOptimizer, plot_clipping
from keras_clip.monitoring.record_csv import append_csv, read_csv, write_csv
from keras_clip.monitoring.tensorboard_events import TensorBoardEvents
from tests.monitoring.records import make_record
from tests.monitoring.test_agreement import events_in
from tests.support.models import fit, make_model

# `fit` of tests.support.models: 48 samples in batches of 8.
UPDATES_PER_EPOCH = 6

# Imported here, because it writes a cache of fonts when it is first imported.
pytest.importorskip("matplotlib.figure", reason="the oldest Keras is tested without")
pytestmark = pytest.mark.any_backend


@pytest.fixture(autouse=True)
def _no_bytecode_is_cut_off(monkeypatch):
    """An import while files are limited would leave a damaged cache."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@contextmanager
def largest_file(size):
    """Limit every file of this process to `size` bytes: the last write is a short one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def rows(begin, end):
    record = make_record(np.arange(begin, end) + 1.0, 2.0)
    return {**record, "step": np.arange(begin, end)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.csv"
    write_csv(rows(0, 10), path)
    return path


class TestCsv:
    def test_rows_that_do_not_fit_are_not_appended(self, path):
        before = path.read_bytes()
        with largest_file(len(before) + 100), pytest.raises(OSError, match=r"large: '.*run\.csv'"):
            append_csv(rows(10, 60), path)
        assert path.read_bytes() == before
        append_csv(rows(10, 20), path)
        np.testing.assert_array_equal(read_csv(path)["step"], np.arange(20))

    def test_a_file_that_does_not_fit_replaces_nothing(self, path):
        before = path.read_bytes()
        with largest_file(len(before)), pytest.raises(OSError, match=r"large: '.*run\.csv'"):
            write_csv(rows(0, 100), path)
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]

    def test_a_foreign_file_without_a_last_line_end_is_left_alone(self, path):
        path.write_text("hello\nworld")
        with pytest.raises(ValueError, match=r"run\.csv holds other columns"):
            append_csv(rows(0, 1), path)
        assert path.read_text() == "hello\nworld"

    def test_a_pipe_is_written_to_and_stays_a_pipe(self, tmp_path):
        pipe, received = tmp_path / "pipe", []
        os.mkfifo(pipe)
        reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
        reader.start()
        write_csv(rows(0, 1), pipe)
        reader.join(timeout=10)
        header = "step,grad_norm,clip_threshold,clip_scale,skipped,rolled_back\n"
        assert received == [header + "0,1.0,2.0,1.0,0,0\n"]
        assert pipe.is_fifo()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_that_does_not_fit_replaces_nothing(tmp_path, suffix):
    path = tmp_path / f"run.{suffix}"
    path.write_bytes(b"a picture")
    with largest_file(100), pytest.raises(OSError, match=rf"large: '.*run\.{suffix}'"):
        plot_clipping(rows(0, 10), path=path)
    assert path.read_bytes() == b"a picture"
    assert os.listdir(tmp_path) == [path.name]


def test_a_figure_without_a_suffix_is_a_png(tmp_path):
    plot_clipping(rows(0, 10), path=tmp_path / "run")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("earlier", [0, 10])
def test_events_that_do_not_fit_are_not_added(tmp_path, earlier):
    events = TensorBoardEvents(tmp_path)
    events.write(rows(0, earlier))
    folder = tmp_path / "clipping"
    size = max((path.stat().st_size for path in folder.glob("*")), default=0)
    with largest_file(size + 100), pytest.raises(OSError, match=r"large: '.*tfevents\..*'"):
        events.write(rows(earlier, 60))
    events.write(rows(earlier, 20))
    scalars, _ = events_in(folder)
    assert [step for step, _ in scalars["clipping/grad_norm"]] == list(range(20))


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_training_stops_with_the_error_and_a_later_fit_has_all_rows(tmp_path, kind):
    """Also in the middle of an epoch, when Keras takes some errors for the end of the data."""
    monitor = ClipMonitor(**{kind: tmp_path / kind})
    model = make_model(ClippedOptimizer("sgd", history_size=2))
    fit(model, epochs=1, callbacks=[monitor])
    written = tmp_path / "csv" if kind == "csv" else next((tmp_path / kind / "clipping").iterdir())

    class FullDisk(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (written.stat().st_size + 10, hard))

    with largest_file(2**40), pytest.raises(OSError, match="File too large: '"):
        fit(model, epochs=1, callbacks=[FullDisk(), monitor])
    fit(model, epochs=1, callbacks=[monitor])
    if kind == "csv":
        np.testing.assert_array_equal(read_csv(written)["step"], monitor.record["step"])
    else:
        scalars, _ = events_in(written.parent)
        found = [step for step, _ in scalars["clipping/grad_norm"]]
        # Events that did not fit are only in the record.
        assert found == sorted(set(found))
        assert found[-UPDATES_PER_EPOCH:] == monitor.record["step"][-UPDATES_PER_EPOCH:].tolist()
