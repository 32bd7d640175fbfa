"""`skip_above`: an update far above the threshold changes nothing."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer, Outliers
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import data, fit, make_model
from tests.support.optimizers import keras_has
from tests.support.stateful_clipper import RunningMean

SPIKE = 3


def stream_with_spike(size, steps=7):
    stream = gradient_stream(steps)
    stream[SPIKE] = [gradient * size for gradient in stream[SPIKE]]
    return stream


def adam(**options):
    return keras.optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True, **options)


def everything(optimizer, variables):
    return values([*variables, *optimizer.inner_optimizer.variables, *optimizer.clipper.variables])


@pytest.mark.parametrize("size", [1e4, np.inf, np.nan], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_as_if_the_spike_had_never_come(size, compiled):
    """Weights, decay, moments, averages, iterations: bit for bit."""
    with_spike = stream_with_spike(np.float32(size))
    without = [gradients for i, gradients in enumerate(with_spike) if i != SPIKE]
    results = []
    for stream in (with_spike, without):
        variables = make_variables()
        optimizer = ClippedOptimizer(adam(), 5.0, skip_above=10.0)
        step = compiled_step(optimizer, variables) if compiled else None
        for gradients in stream:
            step(gradients) if compiled else apply_all(optimizer, variables, [gradients])
        results.append(everything(optimizer, variables))
        assert int(optimizer.skipped_steps.numpy()) == len(stream) - 6
        assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 6
    assert_identical(*results)


def test_nothing_is_skipped_at_or_below_the_multiple():
    stream = gradient_stream(5)
    plain, skipping = make_variables(), make_variables()
    apply_all(ClippedOptimizer(adam(), 1.0), plain, stream)
    optimizer = ClippedOptimizer(adam(), 1.0, skip_above=1e6)
    apply_all(optimizer, skipping, stream)
    assert_identical(values(skipping), values(plain))
    assert int(optimizer.skipped_steps.numpy()) == 0


def test_the_norm_of_the_skipped_update_is_reported():
    optimizer = ClippedOptimizer("sgd", 1.0, skip_above=2.0)
    variable = keras.Variable(np.float32([1.0, 2.0]))
    apply_all(optimizer, [variable], [[np.float32([30.0, 40.0])]])
    assert float(optimizer.grad_norm.numpy()) == 50.0
    np.testing.assert_array_equal(variable.numpy(), [1.0, 2.0])


def test_a_skipped_accumulation_is_dropped_whole():
    """The third of five updates, of three micro-batches each, is skipped."""
    whole = gradient_stream(15)
    whole[7] = [gradient * 1e4 for gradient in whole[7]]
    kept = [*whole[:6], *whole[9:]]
    results = []
    for stream in (whole, kept):
        variables = make_variables()
        optimizer = ClippedOptimizer(adam_without_average(), 5.0, skip_above=10.0)
        step = compiled_step(optimizer, variables)
        for gradients in stream:
            step(gradients)
        results.append(everything(optimizer, variables))
        assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 4
    assert_identical(*results)
    assert int(optimizer.skipped_steps.numpy()) == 0


def adam_without_average():
    # Keras moves the average on micro-batches too, by unchanged weights.
    return keras.optimizers.AdamW(0.05, weight_decay=0.1, gradient_accumulation_steps=3)


@pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
def test_members_of_a_multi_optimizer_skip_together():
    with_spike = stream_with_spike(np.float32(1e4))
    without = [gradients for i, gradients in enumerate(with_spike) if i != SPIKE]
    results = []
    for stream in (with_spike, without):
        variables = make_variables()
        inner = keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(adam(), {"bias": keras.optimizers.SGD(0.1)})
        )
        optimizer = ClippedOptimizer(inner, 5.0, skip_above=10.0)
        apply_all(optimizer, variables, stream)
        results.append(everything(optimizer, variables))
    assert_identical(*results)


def test_state_of_a_clipper_does_not_learn_from_a_skipped_update():
    class Compared(RunningMean):
        def running_threshold(self, update):
            seen = self.updates.value > 0
            infinity = keras.ops.full_like(self.mean.value, float("inf"))
            return update.global_norm, keras.ops.where(seen, self.mean.value, infinity)

    results = []
    with_spike = stream_with_spike(np.float32(1e4))
    for stream in (with_spike, [g for i, g in enumerate(with_spike) if i != SPIKE]):
        variables = make_variables()
        optimizer = ClippedOptimizer("sgd", clipper=Compared(), skip_above=1000.0)
        apply_all(optimizer, variables, stream)
        results.append(everything(optimizer, variables))
    assert_identical(*results)


@pytest.mark.parametrize("arguments", [{}, {"run_eagerly": True}], ids=["default", "eager"])
def test_fit(arguments):
    """A batch of absurd targets is skipped."""
    inputs, targets = data()
    targets = targets.copy()
    targets[16:24] = 1e9
    kept = np.r_[0:16, 24:48]
    if keras.config.backend() == "jax":
        arguments = {}  # run_eagerly compiles each operation by itself: minutes
    runs = []
    for chosen in (np.arange(48), kept):
        model = make_model(ClippedOptimizer(adam(), 50.0, skip_above=20.0), **arguments)
        model.fit(inputs[chosen], targets[chosen], batch_size=8, shuffle=False, verbose=0)
        runs.append(model)
    assert_identical(runs[0].get_weights(), runs[1].get_weights())
    assert int(runs[0].optimizer.skipped_steps.numpy()) == 1


def test_is_saved_and_may_be_assigned(tmp_path):
    model = make_model(ClippedOptimizer("adam", 1e-6, skip_above=2.0))
    fit(model)
    skipped = int(model.optimizer.skipped_steps.numpy())
    assert skipped > 0
    model.optimizer.skip_above = 1e30
    fit(model)
    assert int(model.optimizer.skipped_steps.numpy()) == skipped
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.skipped_steps.numpy()) == skipped
    fit(model), fit(loaded)
    assert_identical(loaded.get_weights(), model.get_weights())


def test_where_nothing_may_be_read_on_the_host(monkeypatch, backend):
    """The code path of accelerators on torch, run on the CPU."""
    if backend != "torch":
        pytest.skip("only torch decides on the host")
    from keras_clip._seam.torch import host

    stream = stream_with_spike(np.float32(1e4))
    results = []
    for on_host in (True, False):
        monkeypatch.setattr(host, "can_read", lambda tensor: on_host)  # noqa: B023
        variables = make_variables()
        optimizer = ClippedOptimizer(adam(), 5.0, skip_above=10.0)
        apply_all(optimizer, variables, stream)
        results.append(everything(optimizer, variables))
        assert int(optimizer.skipped_steps.numpy()) == 1
    assert_close(*results)


@pytest.mark.parametrize("skip_above", [2.0, Outliers(window=4, warm_up=2)], ids=str)
def test_two_replicas_decide_alike(backend, skip_above):
    if backend != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        variable = keras.Variable(np.float32([1.0, 2.0]), name="kernel")
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.1), 5.0, skip_above=skip_above)
        optimizer.build([variable])

    @tf.function
    def step(sizes):
        def replica(size):
            optimizer.apply([tf.constant([3.0, 4.0]) * size], [variable])

        strategy.run(replica, args=(sizes,))

    def distributed(first, second):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant([first, second][context.replica_id_in_sync_group])
        )

    step(distributed(0.5, 0.5))
    step(distributed(0.5, 0.5))
    before = values([variable, *optimizer.inner_optimizer.variables])
    step(distributed(0.1, 100.0))  # only the second replica's is large
    assert_identical(values([variable, *optimizer.inner_optimizer.variables]), before)
    assert int(optimizer.skipped_steps.numpy()) == 1
    step(distributed(0.5, 0.5))
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 3
    assert not np.array_equal(variable.numpy(), before[0])


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan")])
def test_multiples_below_one(value):
    with pytest.raises(ValueError, match=r"skip_above must be a number that is at least 1"):
        ClippedOptimizer("sgd", skip_above=value)


@pytest.mark.parametrize("clipper", ["clip_by_value", "clip_by_norm", ["clip_by_value"]])
def test_clippers_without_one_threshold(clipper):
    with pytest.raises(ValueError, match=r"has none. Use ClipByGlobalNorm.*Received: skip_above=2"):
        ClippedOptimizer("sgd", clipper=clipper, skip_above=2.0)


def test_an_observer_may_skip():
    observer = keras_clip.ObserveOnly("clip_by_global_norm")
    optimizer = ClippedOptimizer("sgd", clipper=observer, skip_above=2.0)
    variable = keras.Variable(np.float32([0.0]))
    apply_all(optimizer, [variable], [[np.float32([1.5])], [np.float32([3.0])]])
    assert int(optimizer.skipped_steps.numpy()) == 1
    np.testing.assert_allclose(variable.numpy(), [-0.015], rtol=1e-6)
