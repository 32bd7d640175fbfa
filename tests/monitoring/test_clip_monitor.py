"""ClipMonitor: the optimizers it finds, its logs, and its record."""

import math

import keras
import numpy as np
import pytest

from keras_clip import ClipMonitor, ClippedOptimizer
from keras_clip.monitoring.record_csv import read_csv
from tests.support.gradient_stream import (
    apply_all,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import data, fit, make_model
from tests.support.optimizers import keras_has
from tests.support.stores import load, saved

# `fit` of tests.support.models: 48 samples in batches of 8.
UPDATES_PER_EPOCH = 6


def fit_with(optimizer, monitor, epochs=2, **arguments):
    model = make_model(optimizer)
    history = fit(model, epochs=epochs, callbacks=[monitor], **arguments)
    return model, history.history


def assert_same_record(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.any_backend
class TestFinding:
    def test_within_a_loss_scale(self):
        monitor = ClipMonitor()
        inner = ClippedOptimizer("sgd", 0.5)
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
        _, logs = fit_with(scaled, monitor)
        assert monitor.optimizers == {inner.name: inner}
        _, expected = fit_with(ClippedOptimizer("sgd", 0.5), ClipMonitor())
        np.testing.assert_allclose(logs["grad_norm"], expected["grad_norm"], rtol=1e-5)

    @pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
    def test_each_member_of_a_multi_optimizer(self, tmp_path):
        kernels = ClippedOptimizer("sgd", 0.5, name="kernels")
        others = ClippedOptimizer("adam", 1e9, name="others")
        groups = keras.optimizers.OptimizerMap(others, {".*kernel": kernels})
        monitor = ClipMonitor(csv=tmp_path / "record.csv")
        _, logs = fit_with(keras.optimizers.MultiOptimizer(groups), monitor)
        assert set(monitor.records) == {"kernels", "others"}
        assert logs["kernels_clip_threshold"] == [0.5, 0.5]
        assert logs["others_clipped_fraction"] == [0.0, 0.0]
        assert len(read_csv(tmp_path / "kernels_record.csv")["step"]) == 2 * UPDATES_PER_EPOCH
        with pytest.raises(ValueError, match=r"kernels.*Take one of monitor\.records"):
            _ = monitor.record

    def test_others_than_the_model_was_compiled_with(self):
        optimizer = ClippedOptimizer("sgd", 0.5)
        apply_all(optimizer, make_variables(), gradient_stream(3))
        monitor = ClipMonitor(optimizers=[optimizer])
        _, logs = fit_with("sgd", monitor, epochs=1)
        assert math.isnan(logs["grad_norm"][0])
        assert len(monitor.record["step"]) == 3

    def test_two_of_one_name(self):
        two = [ClippedOptimizer("sgd", name="one"), ClippedOptimizer("sgd", name="one")]
        with pytest.raises(ValueError, match="Received several of one name"):
            fit_with("sgd", ClipMonitor(optimizers=two))

    def test_nothing_to_watch(self):
        with pytest.raises(ValueError, match=r"the model was compiled with SGD\. Compile it with"):
            fit_with("sgd", ClipMonitor())

    def test_nothing_kept(self):
        with pytest.raises(ValueError, match="history_size=0"):
            fit_with(ClippedOptimizer("sgd", history_size=0), ClipMonitor())

    @pytest.mark.parametrize("wrong", [{"optimizers": ["sgd"]}, {"every": 1.5}, {"per_batch": 1}])
    def test_wrong_types(self, wrong):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            ClipMonitor(**wrong)

    def test_nothing_recorded_yet(self):
        with pytest.raises(ValueError, match="records while a model trains"):
            _ = ClipMonitor().record


class TestLogs:
    def test_early_stopping_watches_them(self):
        stopping = keras.callbacks.EarlyStopping(
            monitor="grad_norm", mode="max", patience=0, min_delta=1e9
        )
        model = make_model(ClippedOptimizer("sgd"))
        history = fit(model, epochs=5, callbacks=[ClipMonitor(), stopping])
        assert len(history.history["grad_norm"]) < 5

    def test_callbacks_before_the_monitor_do_not_see_them(self, tmp_path, capsys):
        """The callbacks that Keras adds come last, so they always see the logs of the monitor."""
        before, after = (keras.callbacks.CSVLogger(tmp_path / n) for n in ("before", "after"))
        callbacks = [before, ClipMonitor(), after]
        logs = fit(make_model(ClippedOptimizer("sgd")), callbacks=callbacks, verbose=2).history
        clip_logs = sorted(set(logs) - {"loss"})
        assert len(clip_logs) == 6
        shown = capsys.readouterr().out
        assert all(f" {name}: " in shown for name in clip_logs)
        columns = {
            path.name: set(path.read_text().splitlines()[0].split(","))
            for path in tmp_path.iterdir()
        }
        assert not columns["before"] & set(clip_logs)
        assert columns["after"] >= set(clip_logs)

    def test_early_stopping_before_the_monitor_warns(self):
        stopping = keras.callbacks.EarlyStopping(monitor="grad_norm", mode="min")
        with pytest.warns(UserWarning, match="`grad_norm` which is not available"):
            fit(make_model(ClippedOptimizer("sgd")), callbacks=[stopping, ClipMonitor()])

    def test_of_batches(self):
        monitor = ClipMonitor(per_batch=True)
        seen = []

        def note(batch, logs):
            seen.append(logs["grad_norm_max"])

        after = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        fit(make_model(ClippedOptimizer("sgd")), epochs=1, callbacks=[monitor, after])
        np.testing.assert_array_equal(seen, np.maximum.accumulate(monitor.record["grad_norm"]))

    def test_no_threshold_where_there_is_none(self):
        _, logs = fit_with(ClippedOptimizer("sgd", clipper="clip_by_value"), ClipMonitor())
        assert "clip_threshold" not in logs
        assert "clipped_fraction" in logs

    def test_observing_changes_nothing(self):
        bare = make_model("adam")
        fit(bare)
        observed, logs = fit_with(ClippedOptimizer("adam", math.inf), ClipMonitor())
        assert_identical(observed.get_weights(), bare.get_weights())
        assert logs["clipped_fraction"] == [0.0, 0.0]
        assert logs["grad_norm"] == logs["grad_norm_clipped"]

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("options", [{"jit_compile": True}, {"steps_per_execution": 3}])
    def test_however_steps_are_compiled(self, options):
        if keras.config.backend() == "torch":
            options = {"run_eagerly": True}
        plain, other = ClipMonitor(), ClipMonitor()
        fit_with(ClippedOptimizer("sgd", history_size=4), plain)
        model = make_model(ClippedOptimizer("sgd", history_size=4), **options)
        fit(model, callbacks=[other])
        np.testing.assert_array_equal(other.record["step"], plain.record["step"])
        np.testing.assert_allclose(other.record["grad_norm"], plain.record["grad_norm"], rtol=1e-5)


@pytest.mark.any_backend
class TestRecord:
    @pytest.mark.parametrize("size", [1, 4, 100])
    def test_is_whole_whatever_the_device_keeps(self, size):
        monitor = ClipMonitor()
        model, _ = fit_with(ClippedOptimizer("sgd", history_size=size), monitor)
        record = monitor.record
        np.testing.assert_array_equal(record["step"], np.arange(2 * UPDATES_PER_EPOCH))
        kept = model.optimizer.history
        assert len(kept["step"]) == min(size, 2 * UPDATES_PER_EPOCH)
        assert_same_record({name: c[-len(kept["step"]) :] for name, c in record.items()}, kept)

    @pytest.mark.parametrize("size", [5, 100])
    def test_of_a_run_that_was_stopped(self, size, tmp_path):
        """The run is saved and loaded, and another monitor continues the file."""
        whole = ClipMonitor()
        fit_with(ClippedOptimizer("sgd", history_size=size), whole, epochs=4)
        path = tmp_path / "record.csv"
        model, _ = fit_with(ClippedOptimizer("sgd", history_size=size), ClipMonitor(csv=path))
        model.save(tmp_path / "model.keras")
        # Updates after the checkpoint, which will be repeated.
        fit(model, epochs=1, callbacks=[ClipMonitor(csv=path)])
        resumed = keras.models.load_model(tmp_path / "model.keras")
        monitor = ClipMonitor(csv=path)
        fit(resumed, callbacks=[monitor])
        assert_same_record(monitor.record, whole.record)
        assert_same_record(read_csv(path), whole.record)

    def test_a_new_run_replaces_the_file(self, tmp_path):
        path = tmp_path / "record.csv"
        fit_with(ClippedOptimizer("sgd", history_size=4), ClipMonitor(csv=path), epochs=3)
        fit_with(ClippedOptimizer("sgd", history_size=4), ClipMonitor(csv=path), epochs=1)
        assert len(read_csv(path)["step"]) == UPDATES_PER_EPOCH

    def test_a_fit_without_an_epoch_keeps_the_file(self, tmp_path):
        path = tmp_path / "new" / "record.csv"
        fit_with(ClippedOptimizer("sgd"), ClipMonitor(csv=path))
        before = path.read_text()
        fit_with(ClippedOptimizer("sgd"), ClipMonitor(csv=path), epochs=0)
        assert path.read_text() == before

    def test_file_of_an_optimizer_that_trained_unwatched_and_was_set_back(self, tmp_path):
        monitor = ClipMonitor(csv=tmp_path / "record.csv")
        model, _ = fit_with(ClippedOptimizer("sgd"), monitor, epochs=1)
        stores = saved(model.optimizer)
        fit(model, epochs=1)
        fit(model, epochs=1, callbacks=[monitor])
        assert_same_record(read_csv(tmp_path / "record.csv"), monitor.record)
        assert len(monitor.record["step"]) == 3 * UPDATES_PER_EPOCH
        load(model.optimizer, stores)
        fit(model, epochs=1, callbacks=[monitor])
        assert_same_record(read_csv(tmp_path / "record.csv"), monitor.record)
        np.testing.assert_array_equal(monitor.record["step"], np.arange(2 * UPDATES_PER_EPOCH))

    @pytest.mark.parametrize("monitor_is_first", [True, False])
    def test_restored_while_training_begins(self, tmp_path, monitor_is_first):
        """BackupAndRestore restores the optimizer before or after the monitor begins."""
        whole = ClipMonitor()
        fit_with(ClippedOptimizer("sgd", history_size=4), whole, epochs=3)
        path = tmp_path / "record.csv"

        class Stop(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    raise KeyboardInterrupt

        def train(*more):
            backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
            monitor = ClipMonitor(csv=path)
            model = make_model(ClippedOptimizer("sgd", history_size=4))
            pair = [monitor, backup] if monitor_is_first else [backup, monitor]
            fit(model, epochs=3, callbacks=[*pair, *more])
            return monitor

        with pytest.raises(KeyboardInterrupt):
            train(Stop())
        assert_same_record(train().record, whole.record)

    def test_says_what_was_lost(self):
        optimizer = ClippedOptimizer("sgd", history_size=2)
        variables, monitor = make_variables(), ClipMonitor(optimizers=[optimizer])
        apply_all(optimizer, variables, gradient_stream(1))

        class Training(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 0:
                    apply_all(optimizer, variables, gradient_stream(5))

        with pytest.warns(UserWarning, match=r"3 updates were not recorded.*history_size=2"):
            fit(make_model("sgd"), epochs=1, callbacks=[monitor, Training()])
        np.testing.assert_array_equal(monitor.record["step"], [0, 4, 5])

    def test_goes_to_csv_and_pandas(self, tmp_path):
        monitor = ClipMonitor()
        fit_with(ClippedOptimizer("sgd"), monitor)
        monitor.to_csv(tmp_path / "record.csv")
        assert_same_record(read_csv(tmp_path / "record.csv"), monitor.record)
        try:
            import pandas
        except ImportError:
            with pytest.raises(ImportError, match="pip install pandas"):
                monitor.to_pandas()
        else:
            assert_same_record(dict(pandas.DataFrame(monitor.record)), dict(monitor.to_pandas()))


class TestHistoryOfAnOptimizer:
    def test_in_a_loop_of_your_own(self):
        optimizer, stream = ClippedOptimizer("sgd", 2.0, history_size=4), gradient_stream(7)
        apply_all(optimizer, make_variables(), stream)
        norms = [np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gs)) for gs in stream]
        np.testing.assert_array_equal(optimizer.history["step"], [3, 4, 5, 6])
        np.testing.assert_allclose(optimizer.history["grad_norm"], norms[3:], rtol=1e-6)

    @pytest.mark.parametrize(("one", "other"), [(4, 6), (6, 4), (4, 0), (0, 4)])
    def test_goes_on_in_another_size(self, one, other):
        source = ClippedOptimizer("sgd", 0.3, history_size=one)
        target = ClippedOptimizer("sgd", 0.7, history_size=other)
        apply_all(source, make_variables(), gradient_stream(5))
        target.build(make_variables())
        load(target, saved(source))
        assert float(target.max_norm.numpy()) == pytest.approx(0.3)
        expected = np.arange(5)[-min(one, other) :] if min(one, other) else []
        np.testing.assert_array_equal(target.history["step"], expected)

    def test_skipped_and_applied(self):
        stream = gradient_stream(3)
        stream[1][0][0, 0] = np.inf
        optimizer = ClippedOptimizer("sgd", 1.0, nonfinite="skip")
        apply_all(optimizer, make_variables(), stream)
        record = optimizer.history
        np.testing.assert_array_equal(record["skipped"], [False, True, False])
        assert record["clip_scale"][1] == 0.0
        assert np.isinf(record["grad_norm"][1])

    @pytest.mark.parametrize("wrong", [-1, 1.5, "many"])
    def test_size_is_a_count(self, wrong):
        with pytest.raises((TypeError, ValueError), match="history_size must be an int"):
            ClippedOptimizer("sgd", history_size=wrong)

    def test_size_is_in_the_config(self):
        config = ClippedOptimizer("sgd", history_size=7).get_config()
        assert ClippedOptimizer.from_config(config).history_size == 7


class TestVariableNorms:
    def test_are_those_of_numpy(self):
        optimizer, stream = ClippedOptimizer("sgd", 1.0), gradient_stream(7)
        variables = make_variables()
        optimizer.build(variables)
        optimizer.record_variable_norms(every=3, size=2)
        apply_all(optimizer, variables, stream)
        found = optimizer.variable_norms
        np.testing.assert_array_equal(found["step"], [3, 6])
        for index, variable in enumerate(variables):
            expected = [np.linalg.norm(stream[step][index].astype("float64")) for step in (3, 6)]
            np.testing.assert_allclose(found[variable.path], expected, rtol=1e-6)

    def test_none_where_a_variable_has_no_gradient(self):
        optimizer, variables = ClippedOptimizer("sgd", 1.0), make_variables()
        optimizer.record_variable_norms(every=1)
        optimizer.build(variables)
        (gradients,) = gradient_stream(1)
        gradients[1] = None
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            apply_all(optimizer, variables, [gradients])
        assert optimizer.variable_norms[variables[1].path].tolist() == [0.0]
        assert optimizer.variable_norms[variables[2].path][0] > 0

    def test_largest_are_listed_when_training_ends(self, capsys):
        monitor = ClipMonitor(per_variable=True, every=4)
        fit_with(ClippedOptimizer("sgd"), monitor)
        np.testing.assert_array_equal(monitor.variable_norms["step"], [0, 4, 8])
        shown = capsys.readouterr().out
        assert "Largest gradient norms, 4 of 4 variables:" in shown
        norms = {p: c.max() for p, c in monitor.variable_norms.items() if p != "step"}
        lines = [line.split()[0] for line in shown.splitlines()[1:]]
        assert lines == sorted(norms, key=lambda path: -norms[path])

    def test_those_that_turn_bad_are_named(self, capsys):
        """They are named even at a step that is not recorded."""
        inputs, targets = data()
        targets[8] = np.inf
        monitor = ClipMonitor(per_variable=True, every=100)
        model = make_model(ClippedOptimizer("sgd", nonfinite="skip"))
        model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
        shown = capsys.readouterr().out
        assert "Gradients NaN or infinite at step 1: " in shown
        assert "hidden/kernel" in shown

    def test_a_step_that_was_compiled_without_them(self):
        model = make_model(ClippedOptimizer("sgd"))
        fit(model, epochs=1)
        monitor = ClipMonitor(per_variable=True, every=1)
        fit(model, epochs=1, callbacks=[monitor])
        steps = np.arange(UPDATES_PER_EPOCH, 2 * UPDATES_PER_EPOCH)
        np.testing.assert_array_equal(monitor.variable_norms["step"], steps)

    def test_without_an_epoch(self, capsys):
        fit_with(ClippedOptimizer("sgd"), ClipMonitor(per_variable=True), epochs=0)
        assert "No norms of single variables were recorded." in capsys.readouterr().out

    def test_are_not_saved(self, tmp_path):
        model, _ = fit_with(ClippedOptimizer("sgd", 0.5), ClipMonitor(per_variable=True))
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_identical(values(loaded.optimizer.clipper.variables), [np.float32(0.5)])
        assert list(loaded.optimizer.variable_norms) == ["step"]

    def test_with_other_numbers_while_recording(self):
        optimizer = ClippedOptimizer("sgd")
        optimizer.record_variable_norms(every=2)
        with pytest.raises(ValueError, match=r"with every=2.*Received: every=3"):
            optimizer.record_variable_norms(every=3)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_variable_norms_of_replicas():
    import tensorflow as tf

    from tests.support.mirrored import mirrored_strategy

    inputs, targets = data()
    batches = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(16)
    found = []
    for strategy in (mirrored_strategy(), None):
        with tf.distribute.get_strategy().scope() if strategy is None else strategy.scope():
            model = make_model(ClippedOptimizer("sgd", 0.5))
        monitor = ClipMonitor(per_variable=True, every=2)
        model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[monitor])
        found.append(monitor.variable_norms)
    for replicas, one_device in zip(*(norms.values() for norms in found), strict=True):
        np.testing.assert_allclose(replicas, one_device, rtol=1e-5)


class TestSkippedBatches:
    def fit(self, optimizer, bad=(1, 7, 10)):
        """Six batches an epoch; these of all twelve have infinite targets."""
        inputs, targets = data()
        targets = np.concatenate([targets, targets]).astype("float32")
        for batch in bad:
            targets[8 * batch] = np.inf
        monitor = ClipMonitor()
        model = make_model(optimizer)
        for epoch in range(2):
            part = slice(48 * epoch, 48 * (epoch + 1))
            model.fit(
                inputs,
                targets[part],
                batch_size=8,
                shuffle=False,
                verbose=0,
                callbacks=[monitor],
                initial_epoch=epoch,
                epochs=epoch + 1,
            )
        return monitor

    def test_epoch_and_index_in_the_epoch(self):
        monitor = self.fit(ClippedOptimizer("sgd", nonfinite="skip"))
        found = {name: column.tolist() for name, column in monitor.skipped_batches.items()}
        assert found == {"step": [1, 7, 10], "epoch": [0, 1, 1], "batch": [1, 1, 4]}

    def test_an_accumulation_ends_with_it(self):
        """Updates end with batches 3, 7 and 11, the third and the last of the second epoch."""
        inner = keras.optimizers.SGD(gradient_accumulation_steps=4)
        monitor = self.fit(ClippedOptimizer(inner, nonfinite="skip"), bad=(4, 9))
        found = {name: column.tolist() for name, column in monitor.skipped_batches.items()}
        assert found == {"step": [1, 2], "epoch": [1, 1], "batch": [1, 5]}

    def test_overflows_inside_a_loss_scale_have_a_batch(self):
        inner = ClippedOptimizer("sgd", skip_above=1.0, history_size=100)
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0)
        inner.max_norm = 1e-3
        found = self.fit(scaled, bad=(1,)).skipped_batches
        assert found["step"].tolist() == list(range(12))
        assert found["batch"].tolist() == [*range(6), *range(6)]

    @pytest.mark.any_backend
    def test_an_accumulation_inside_a_loss_scale_has_none(self):
        """An overflow is a single micro-batch, which the row does not say."""
        inner = ClippedOptimizer(
            keras.optimizers.SGD(gradient_accumulation_steps=2), nonfinite="skip"
        )
        scaled = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0)
        assert set(self.fit(scaled, bad=(1,)).skipped_batches["batch"].tolist()) == {-1}
