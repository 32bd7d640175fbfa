"""`nonfinite=`: updates whose gradients are NaN or infinite."""

import contextlib

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer, NonFiniteGradientError, TooManySkipsError
from tests.reference import global_norm as reference
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    SHAPES,
    apply_all,
    as_tensors,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import data, fit, make_model
from tests.support.stateful_clipper import RunningMean

BAD = 3
COMPILED = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def stream_with(value, steps=7, entry=(1, 1)):
    """One entry of one gradient, of the bias, is not finite at step `BAD`."""
    stream = gradient_stream(steps)
    stream[BAD][entry[0]] = stream[BAD][entry[0]].copy()
    stream[BAD][entry[0]].flat[entry[1]] = value
    return stream


def inner(**options):
    return keras.optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True, **options)


def run(optimizer, stream, compiled):
    variables = make_variables()
    step = compiled_step(optimizer, variables) if compiled else None
    for gradients in stream:
        step(gradients) if compiled else apply_all(optimizer, variables, [gradients])
    return variables


def everything(optimizer, variables):
    return values([*variables, *optimizer.inner_optimizer.variables, *optimizer.clipper.variables])


def on_an_accelerator():
    """Whether torch would have to stop the device to raise."""
    device = getattr(keras.ops.zeros(()), "device", None)
    return keras.config.backend() == "torch" and device.type != "cpu"


@contextlib.contextmanager
def raised(optimizer):
    """Raise the errors of the body: at once, or at its end if they wait."""
    if on_an_accelerator():
        optimizer.raise_if_nonfinite()  # before the first step, so that it does not warn
    yield
    if on_an_accelerator():
        optimizer.raise_if_nonfinite()


def number(variable):
    return int(keras.ops.convert_to_numpy(variable))


class TestPropagate:
    @COMPILED
    def test_the_step_shows_the_nan(self, compiled):
        optimizer = ClippedOptimizer("sgd", 1.0)
        variables = run(optimizer, stream_with(np.nan)[: BAD + 1], compiled)
        assert all(np.isnan(value).all() for value in values(variables))
        assert np.isnan(optimizer.grad_norm.numpy()) and number(optimizer.skipped_steps) == 0


class TestSkip:
    @COMPILED
    @pytest.mark.parametrize(
        "value", [np.nan, np.inf, pytest.param(-np.inf, marks=pytest.mark.any_backend)], ids=str
    )
    def test_as_if_the_update_had_never_come(self, value, compiled):
        """Weights, decay, moments, averages, iterations, the clipper's state: bit for bit."""
        stream = stream_with(value)
        results = []
        for chosen in (stream, stream[:BAD] + stream[BAD + 1 :]):
            optimizer = ClippedOptimizer(inner(), clipper=RunningMean(), nonfinite="skip")
            results.append(everything(optimizer, run(optimizer, chosen, compiled)))
            assert number(optimizer.skipped_steps) == len(chosen) - 6
            assert number(optimizer.iterations) == 6
        assert_identical(*results)

    @pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="JAX always uses XLA")
    @pytest.mark.parametrize("policy", ["skip", "zero"])
    def test_compiled_by_xla_as_otherwise(self, policy):
        results = []
        for jit_compile in (False, True):
            variables = make_variables()
            optimizer = ClippedOptimizer(inner(), clipper=RunningMean(), nonfinite=policy)
            step = compiled_step(optimizer, variables, jit_compile=jit_compile)
            for gradients in stream_with(np.nan):
                step(gradients)
            results.append(everything(optimizer, variables))
        assert_close(*results, rtol=5e-6)

    def test_finite_gradients_are_applied_as_ever(self):
        stream = gradient_stream(5)
        plain, skipping = (
            run(ClippedOptimizer(inner(), 1.0, nonfinite=policy), stream, False)
            for policy in ("propagate", "skip")
        )
        assert_identical(values(skipping), values(plain))

    @pytest.mark.parametrize(
        "bad_micro_batch", [7, *(pytest.param(n, marks=pytest.mark.any_backend) for n in (6, 8))]
    )
    def test_one_micro_batch_spoils_its_update_whole(self, bad_micro_batch):
        stream = gradient_stream(15)
        stream[bad_micro_batch] = [np.full_like(g, np.nan) for g in stream[bad_micro_batch]]
        results = []
        for chosen in (stream, [*stream[:6], *stream[9:]]):
            options = {"weight_decay": 0.1, "gradient_accumulation_steps": 3}
            adam = keras.optimizers.AdamW(0.05, **options)
            optimizer = ClippedOptimizer(adam, 1.0, nonfinite="skip")
            results.append(everything(optimizer, run(optimizer, chosen, compiled=True)))
            assert number(optimizer.skipped_steps) == (1 if chosen is stream else 0)
        assert_identical(*results)

    def test_with_skip_above_both_are_skipped(self):
        stream = stream_with(np.nan)
        stream[5] = [gradient * np.float32(1e4) for gradient in stream[5]]
        optimizer = ClippedOptimizer("sgd", 1.0, nonfinite="skip", skip_above=100.0)
        kept = [g for i, g in enumerate(stream) if i not in (BAD, 5)]
        expected = run(ClippedOptimizer("sgd", 1.0), kept, False)
        assert_identical(values(run(optimizer, stream, False)), values(expected))
        assert number(optimizer.skipped_steps) == 2

    def test_in_fit_and_saved(self, tmp_path):
        model = make_model(ClippedOptimizer(inner(), 1.0, nonfinite="skip"))
        inputs, targets = data()
        spoiled = targets.copy()
        spoiled[16] = np.nan
        model.fit(inputs, spoiled, batch_size=8, shuffle=False, verbose=0)
        assert number(model.optimizer.skipped_steps) == 1
        kept = np.r_[0:16, 24:48]
        other = make_model(ClippedOptimizer(inner(), 1.0))
        other.fit(inputs[kept], targets[kept], batch_size=8, shuffle=False, verbose=0)
        assert_identical(model.get_weights(), other.get_weights())
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.optimizer.nonfinite == "skip"
        assert number(loaded.optimizer.skipped_steps) == 1


class TestZero:
    @COMPILED
    def test_entries_become_zero_before_the_clip(self, compiled):
        stream = stream_with(np.nan, entry=(0, 5))
        stream[BAD][1] = np.full(SHAPES["bias"], -np.inf, "float32")
        mended = [[np.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0) for g in s] for s in stream]
        optimizer = ClippedOptimizer("adam", 0.7, nonfinite="zero")
        ours = run(optimizer, stream[: BAD + 1], compiled)
        norm = reference.global_norm(mended[BAD])
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)
        assert number(optimizer.zeroed_steps) == 1
        expected = run(ClippedOptimizer("adam", 0.7), mended[: BAD + 1], compiled)
        assert_close(values(ours), values(expected))

    def test_a_micro_batch_spoils_no_later_update(self):
        stream = gradient_stream(6)
        stream[1][0] = np.full(SHAPES["kernel"], np.nan, "float32")
        sgd = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        ours = run(ClippedOptimizer(sgd, 1e9, nonfinite="zero"), stream, False)
        kernel = make_variables()[0].numpy() - 0.05 * sum(step[0] for step in stream[2:])
        np.testing.assert_allclose(ours[0].numpy(), kernel, rtol=1e-5, atol=1e-6)

    def test_finite_gradients_stay_bit_for_bit(self):
        stream = gradient_stream(5)
        plain = run(ClippedOptimizer("adam", 1.0), stream, True)
        zeroing = run(ClippedOptimizer("adam", 1.0, nonfinite="zero"), stream, True)
        assert_identical(values(zeroing), values(plain))

    @pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="IndexedSlices")
    def test_slices_stay_slices(self):
        import tensorflow as tf

        table = keras.Variable(np.zeros((3, 2), "float32"))
        rows = tf.constant([[np.nan, 3.0], [0.0, 1.0]])
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), 2.0, nonfinite="zero")
        optimizer.apply([tf.IndexedSlices(rows, [1, 1], [3, 2])], [table])
        np.testing.assert_allclose(table.numpy(), [[0, 0], [0, -2], [0, 0]], rtol=1e-6)


MESSAGE_OF_A_GRAPH = r"Reasons and variables:\] \[gradients that are not finite bias\]"


class TestRaise:
    def test_an_eager_step_raises_and_names_the_variables(self):
        optimizer = ClippedOptimizer("adam", 1.0, nonfinite="raise")
        variables = make_variables()
        stream = stream_with(np.inf)
        apply_all(optimizer, variables, stream[:BAD])
        before = everything(optimizer, variables)
        with (
            pytest.raises(NonFiniteGradientError, match=r": bias$"),
            raised(optimizer),
        ):
            apply_all(optimizer, variables, [stream[BAD]])
        assert_identical(everything(optimizer, variables), before)

    @pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="graphs are TensorFlow's")
    def test_a_graph_raises(self):
        import tensorflow as tf

        optimizer = ClippedOptimizer("adam", 1.0, nonfinite="raise")
        with pytest.raises(tf.errors.InvalidArgumentError, match=MESSAGE_OF_A_GRAPH):
            run(optimizer, stream_with(np.inf), compiled=True)

    @pytest.mark.skipif(keras.config.backend() == "torch", reason="XLA compiles the others")
    def test_what_xla_compiles_waits(self):
        optimizer = ClippedOptimizer("adam", 1.0, nonfinite="raise")
        variables = make_variables()
        with pytest.warns(UserWarning, match="RaiseOnNonFinite"):
            step = compiled_step(optimizer, variables, jit_compile=True)
            for gradients in stream_with(np.inf):
                step(gradients)
        with pytest.raises(NonFiniteGradientError, match=r": bias$"):
            optimizer.raise_if_nonfinite()
        optimizer.raise_if_nonfinite()  # raised once

    @pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 3}])
    def test_in_fit_by_the_callback(self, arguments):
        if keras.config.backend() == "torch" and arguments:
            pytest.skip("not on torch, where compiling takes minutes")
        model = make_model(ClippedOptimizer("adam", 1.0, nonfinite="raise"), **arguments)
        inputs, targets = data()
        targets[8:] = np.nan  # from the second batch on
        # The same policy, because a branch may change the last bit of a compiled update.
        one = make_model(ClippedOptimizer("adam", 1.0, nonfinite="raise"), **arguments)
        callbacks = [keras_clip.RaiseOnNonFinite()]
        one.fit(inputs[:8], targets[:8], shuffle=False, verbose=0, callbacks=callbacks)
        with pytest.raises(NonFiniteGradientError, match="hidden/kernel, .*output/bias"):
            callbacks = [keras_clip.RaiseOnNonFinite()]
            model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
        assert_identical(model.get_weights(), one.get_weights())
        # Without the callback, an eager step raises by itself again.
        bad = as_tensors([np.full(v.shape, np.nan, "float32") for v in model.trainable_variables])
        with pytest.raises(NonFiniteGradientError):
            model.optimizer.apply(bad, model.trainable_variables)

    def test_the_callback_needs_a_wrapper(self):
        model = make_model("sgd")
        with pytest.raises(ValueError, match=r"compiled with SGD. Compile it with keras_clip"):
            fit(model, callbacks=[keras_clip.RaiseOnNonFinite()])


class TestTooManySkips:
    def stream(self, *bad):
        stream = gradient_stream(7)
        for index in bad:
            stream[index] = [np.full_like(gradient, np.nan) for gradient in stream[index]]
        return stream

    def make(self):
        return ClippedOptimizer("adam", 1.0, nonfinite="skip", max_consecutive_skips=2)

    def test_more_than_that_in_a_row(self):
        optimizer = self.make()
        message = "max_consecutive_skips=2.*kernel, bias"
        with pytest.raises(TooManySkipsError, match=message), raised(optimizer):
            run(optimizer, self.stream(4, 5, 6), False)

    def test_as_many_or_with_good_ones_between(self):
        optimizer = self.make()
        with raised(optimizer):
            run(optimizer, self.stream(0, 1, 3, 4, 6), False)
        assert number(optimizer.skipped_steps) == 5
        optimizer.raise_if_nonfinite()

    @pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX compiles what it traces")
    def test_a_good_update_does_not_undo_it(self):
        optimizer = self.make()
        optimizer.raise_if_nonfinite()
        run(optimizer, self.stream(1, 2, 3), compiled=True)
        with pytest.raises(TooManySkipsError):
            optimizer.raise_if_nonfinite()
        optimizer.raise_if_nonfinite()  # raised once

    def test_whoever_mends_the_cause_may_go_on(self):
        optimizer, variables = self.make(), make_variables()
        with pytest.raises(TooManySkipsError):
            apply_all(optimizer, variables, self.stream(0, 1, 2))
        apply_all(optimizer, variables, self.stream(1, 2))
        assert number(optimizer.skipped_steps) == 5

    def test_in_fit_by_the_callback(self):
        model = make_model(self.make())
        inputs, targets = data()
        with pytest.raises(TooManySkipsError):
            callbacks = [keras_clip.RaiseOnNonFinite()]
            model.fit(inputs, targets * np.nan, batch_size=8, verbose=0, callbacks=callbacks)
        assert number(model.optimizer.skipped_steps) == 3

    def test_what_skip_above_skips_counts_too(self):
        optimizer = ClippedOptimizer("sgd", 1e-6, skip_above=1.0, max_consecutive_skips=2)
        with (
            pytest.raises(
                TooManySkipsError, match=r"because of a norm or loss above skip_above[^:]*$"
            ),
            raised(optimizer),
        ):
            run(optimizer, gradient_stream(3), False)

    @pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
    @COMPILED
    def test_of_finite_spikes_beside_another_policy(self, compiled):
        optimizer = ClippedOptimizer(
            "sgd", 1e-6, nonfinite="raise", skip_above=1.0, max_consecutive_skips=2
        )
        # In a graph of TensorFlow the error has another class.
        with pytest.raises(Exception, match=r"max_consecutive_skips=2"):
            run(optimizer, gradient_stream(3), compiled)
            optimizer.raise_if_nonfinite()


class TestBadInput:
    @pytest.mark.parametrize("value", ["ignore", None, 0, True])
    def test_another_policy(self, value):
        with pytest.raises(ValueError, match=r"nonfinite must be 'propagate'.*Received: nonf"):
            ClippedOptimizer("sgd", nonfinite=value)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
    def test_another_limit(self, value):
        with pytest.raises(ValueError, match="max_consecutive_skips must be an integer of at lea"):
            ClippedOptimizer("sgd", nonfinite="skip", max_consecutive_skips=value)

    @pytest.mark.parametrize("policy", ["propagate", "zero", "raise"])
    def test_a_limit_where_nothing_is_skipped(self, policy):
        with pytest.raises(ValueError, match="no option here skips any. Set nonfinite='skip'"):
            ClippedOptimizer("sgd", nonfinite=policy, max_consecutive_skips=3)


def test_the_config_has_all_of_it():
    made = ClippedOptimizer("sgd", nonfinite="skip", max_consecutive_skips=5)
    again = ClippedOptimizer.from_config(made.get_config())
    assert (again.nonfinite, again.max_consecutive_skips) == ("skip", 5)


def test_known_once_it_is_built():
    with pytest.raises(AttributeError, match="zeroed_steps is known once the optimizer is built"):
        _ = ClippedOptimizer("sgd").zeroed_steps


@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
@pytest.mark.parametrize("looked", ["in no fit", "in an earlier fit", "by hand"])
def test_a_fit_that_nobody_watches_raises_at_its_end(looked):
    model = make_model(ClippedOptimizer("sgd", nonfinite="raise"))
    inputs, targets = data()
    if looked == "in an earlier fit":
        model.fit(inputs, targets, verbose=0, callbacks=[keras_clip.RaiseOnNonFinite()])
    if looked == "by hand":
        model.optimizer.raise_if_nonfinite()
    expected = NonFiniteGradientError
    if keras.config.backend() == "tensorflow" and looked == "in no fit":
        import tensorflow as tf

        # A plain graph raises by itself, with TensorFlow's error.
        expected = (NonFiniteGradientError, tf.errors.InvalidArgumentError)
    with pytest.raises(expected, match="NaN or infinite"):
        model.fit(inputs, targets * np.nan, verbose=0)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="XLA compiles the others")
@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
def test_a_finite_spike_does_not_wipe_out_the_names_of_the_first_nan():
    optimizer = ClippedOptimizer("sgd", 1.0, nonfinite="raise", skip_above=100.0)
    step = compiled_step(optimizer, make_variables(), jit_compile=True)
    bad, spike = gradient_stream(2)
    bad[1][0] = np.nan
    spike[0][:] = 1e6
    step(bad)
    step(spike)
    with pytest.raises(NonFiniteGradientError, match=r": bias$"):
        optimizer.raise_if_nonfinite()
