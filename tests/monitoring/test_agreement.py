"""Logs, CSV file, TensorBoard and record agree with each other and with float64 NumPy."""

import contextlib
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_clip import AutoClip, ClipMonitor, ClippedOptimizer
from tests.distribution import numpy_loop
from tests.support.mirrored import mirrored_strategy
from tests.support.models import data, make_model

RATE, MAX_NORM, BATCH, EPOCHS = 0.05, 4.0, 16, 4
CASES = ["plain", "accumulation", "skipped"]
if keras.config.backend() == "tensorflow":
    CASES += ["replicas", "replicas that skip"]


class Batches(keras.utils.PyDataset):
    """The data in order, in batches of a size."""

    def __init__(self, inputs, targets, size):
        super().__init__()
        self.arrays, self.size = (inputs, targets), size

    def __len__(self):
        return len(self.arrays[0]) // self.size

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return tuple(array[rows] for array in self.arrays)


class Run:
    """A fit of one case, with all callbacks that record."""

    def __init__(self, case, folder):
        micro_batches = 2 if case == "accumulation" else None
        inputs, targets = data()
        if "skip" in case:
            # The last sample of the second batch: with replicas, the second's.
            targets[2 * BATCH - 1] = np.nan
        strategy = mirrored_strategy() if "replicas" in case else None
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            inner = keras.optimizers.SGD(RATE, gradient_accumulation_steps=micro_batches)
            optimizer = ClippedOptimizer(inner, MAX_NORM, nonfinite="skip")
            self.model = make_model(optimizer)
        self.start = self.model.get_weights()
        self.csv, self.log, self.events = (folder / n for n in ("record.csv", "log.csv", "events"))
        self.monitor = ClipMonitor(csv=self.csv, tensorboard=self.events)
        logger = keras.callbacks.CSVLogger(self.log)
        self.after = keras.callbacks.LambdaCallback(on_epoch_end=self.note)
        self.noted = []
        size = BATCH // (micro_batches or 1)
        if strategy is None:
            self.data = Batches(inputs, targets, size)
        else:
            import tensorflow as tf

            self.data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(size)
        self.logs = self.model.fit(
            self.data,
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=[self.monitor, logger, self.after],
        ).history

    def note(self, epoch, logs):
        self.noted.append(dict(logs))

    def expected(self, case):
        """Norms, thresholds, scales and skips of every update, from float64 NumPy."""
        inputs, targets = data()
        share = np.full((BATCH, 1), 1 / BATCH)
        starts = range(0, len(inputs), BATCH)
        kept = [s for s in starts if not ("skip" in case and s == BATCH)]
        batches = [(inputs[s : s + BATCH], targets[s : s + BATCH], share) for s in kept] * EPOCHS
        _, norms = numpy_loop.train(self.start, batches, RATE, MAX_NORM)
        norms = np.reshape(norms, (EPOCHS, len(kept)))
        skipped = np.zeros((EPOCHS, len(kept)), bool)
        if "skip" in case:
            norms = np.insert(norms, 1, np.nan, axis=1)
            skipped = np.insert(skipped, 1, True, axis=1)
        return norms, skipped


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def run(case, tmp_path_factory):
    keras.utils.set_random_seed(20250101)
    return Run(case, tmp_path_factory.mktemp("run"))


def test_record_is_what_numpy_says(run, case):
    norms, skipped = run.expected(case)
    scales = np.where(skipped, 0.0, np.minimum(1.0, MAX_NORM / norms))
    record = run.monitor.record
    assert list(record) == [
        "step",
        "grad_norm",
        "clip_threshold",
        "clip_scale",
        "skipped",
        "rolled_back",
    ]
    assert not record["rolled_back"].any()
    np.testing.assert_array_equal(record["step"], np.arange(norms.size))
    np.testing.assert_array_equal(record["skipped"], skipped.ravel())
    np.testing.assert_allclose(record["grad_norm"], norms.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(record["clip_threshold"], MAX_NORM)
    np.testing.assert_allclose(record["clip_scale"], scales.ravel(), rtol=1e-5)
    # If all or no updates of a case are clipped, the test would show little.
    assert 0.2 < np.mean(scales[~skipped] < 1) < 0.9


def test_logs_are_those_of_the_record(run, case):
    norms, skipped = run.expected(case)
    for epoch in range(EPOCHS):
        applied = norms[epoch][~skipped[epoch]]
        expected = {
            "grad_norm": applied.mean(),
            "grad_norm_max": applied.max(),
            "grad_norm_clipped": np.minimum(applied, MAX_NORM).mean(),
            "clip_threshold": MAX_NORM,
            "clipped_fraction": np.mean(applied > MAX_NORM),
            "skipped_steps": skipped[epoch].sum(),
        }
        for name, value in expected.items():
            assert run.logs[name][epoch] == pytest.approx(value, rel=1e-5), name
            assert run.noted[epoch][name] == run.logs[name][epoch]


def test_a_csv_logger_after_the_monitor_has_the_same(run):
    table = np.genfromtxt(run.log, delimiter=",", names=True)
    for name in ("grad_norm", "grad_norm_max", "clipped_fraction", "skipped_steps"):
        np.testing.assert_array_equal(table[name], run.logs[name])


def test_csv_file_is_the_record_to_the_bit(run):
    table = np.genfromtxt(run.csv, delimiter=",", names=True)
    for name, column in run.monitor.record.items():
        np.testing.assert_array_equal(table[name], column)


def test_events_are_the_record(run):
    scalars, histograms = events_in(run.events / "clipping")
    record = run.monitor.record
    for name in ("grad_norm", "clip_threshold", "clip_scale"):
        steps, values = zip(*scalars[f"clipping/{name}"], strict=True)
        np.testing.assert_array_equal(steps, record["step"])
        np.testing.assert_allclose(values, record[name], rtol=1e-6)
    finite = record["grad_norm"][np.isfinite(record["grad_norm"])]
    counted = sum(buckets[:, 2].sum() for _, buckets in histograms["clipping/grad_norms"])
    assert counted == len(finite)


def events_in(folder: Path):
    """All points of all event files, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    scalars, histograms = {}, {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = make_ndarray(value.tensor)
                into = histograms if array.ndim else scalars
                point = (event.step, array if array.ndim else float(array))
                into.setdefault(value.tag, []).append(point)
    return scalars, histograms


def test_adaptive_thresholds_are_those_in_force():
    model = make_model(ClippedOptimizer("sgd", clipper=AutoClip(50.0, history_size=4)))
    monitor = ClipMonitor()
    inputs, targets = data()
    model.fit(
        inputs, targets, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[monitor]
    )
    record = monitor.record
    norms = record["grad_norm"]
    medians = [np.percentile(norms[max(0, i - 3) : i + 1], 50) for i in range(len(norms))]
    np.testing.assert_allclose(record["clip_threshold"], medians, rtol=1e-6)
    np.testing.assert_allclose(record["clip_scale"], np.minimum(1, medians / norms), rtol=1e-6)
