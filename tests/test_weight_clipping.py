"""Weights are projected after each update, and at no other time."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, WeightClipping
from tests.conftest import LOGICAL_DEVICES
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
from tests.support.stores import saved

VECTORS = Path(__file__).parent / "vectors"
INFINITE = float("inf")


def sgd(rate=0.0, max_weight=None, **options):
    return ClippedOptimizer(keras.optimizers.SGD(rate, **options), INFINITE, max_weight=max_weight)


def vector_cases():
    archive = np.load(VECTORS / "weight_clip.npz")
    return archive, json.loads(str(archive["meta"]))["cases"]


def network():
    """The layers of the vectors: torch's Linear, Conv2d and Linear."""
    layers = [
        (keras.layers.Dense(5), (None, 4)),
        (keras.layers.Conv2D(6, 2), (None, 8, 8, 3)),
        (keras.layers.Dense(2), (None, 6)),
    ]
    for layer, shape in layers:
        layer.build(shape)
    # The layers have to live as long as they are used.
    return [layer for layer, _ in layers], [v for layer, _ in layers for v in layer.weights]


def to_keras(array):
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


@pytest.mark.parametrize("case", vector_cases()[1])
@pytest.mark.parametrize("which", ["wgan", "elsayed"])
def test_equals_reference_implementations(case, which):
    archive, cases = vector_cases()
    parameters = cases[case]
    layers, variables = network()
    for i, variable in enumerate(variables):
        variable.assign(to_keras(archive[f"{case}/w{i}"]))
    bound = parameters["c"]
    if which == "elsayed":
        bound = WeightClipping(parameters["kappa"], scale_by_fan_in=True)
    gradients = [np.zeros(v.shape, "float32") for v in variables]
    apply_all(sgd(max_weight=bound), variables, [gradients])
    assert len(layers) == 3
    for i, value in enumerate(values(variables)):
        expected = to_keras(archive[f"{case}/{which}{i}"])
        np.testing.assert_allclose(value, expected, rtol=0 if which == "wgan" else 1e-6)


def expected_run(steps, bound, rate):
    weights = values(make_variables())
    for gradients in gradient_stream(steps):
        weights = [
            np.clip(w - np.float32(rate) * g, -np.float32(bound), np.float32(bound))
            for w, g in zip(weights, gradients, strict=True)
        ]
    return weights


@pytest.mark.parametrize("jit_compile", [False, True])
def test_loop_compiled(jit_compile):
    variables = make_variables()
    step = compiled_step(sgd(0.2, max_weight=0.4), variables, jit_compile)
    for gradients in gradient_stream(6):
        step(gradients)
    assert_close(values(variables), expected_run(6, 0.4, 0.2))


def test_loop_eager():
    variables = make_variables()
    apply_all(sgd(0.2, max_weight=0.4), variables, gradient_stream(6))
    assert_close(values(variables), expected_run(6, 0.4, 0.2))
    assert max(np.abs(value).max() for value in values(variables)) == np.float32(0.4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_bound_never_reached_changes_no_bit(jit_compile):
    results = []
    for bound in (None, 1e6):
        variables = make_variables()
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.05), 1.0, max_weight=bound)
        step = compiled_step(optimizer, variables, jit_compile)
        for gradients in gradient_stream(5):
            step(gradients)
        results.append(values(variables))
    assert_identical(*results)


def test_what_is_within_stays_and_nan_shows():
    variable = keras.Variable([0.1, -0.0, 1e-37, 0.5, -7.0, np.nan, INFINITE])
    apply_all(sgd(max_weight=0.5), [variable], [[np.zeros(7, "float32")]])
    expected = np.float32([0.1, -0.0, 1e-37, 0.5, -0.5, np.nan, 0.5])
    np.testing.assert_array_equal(variable.numpy(), expected)
    assert np.signbit(variable.numpy()[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype, backend):
    if dtype == "float64" and backend == "jax":
        pytest.skip("JAX has no float64 unless asked for when the process starts")
    variable = keras.Variable([3.0, -3.0, 0.25], dtype=dtype)
    sgd(max_weight=0.1).apply([keras.ops.zeros(3, dtype=dtype)], [variable])
    wide = variable.value if dtype == "float64" else keras.ops.cast(variable.value, "float32")
    result = keras.ops.convert_to_numpy(wide)
    np.testing.assert_allclose(
        result, [0.1, -0.1, 0.1], rtol={"float64": 1e-15, "float16": 1e-3, "bfloat16": 4e-3}[dtype]
    )


def test_variables_without_a_gradient_are_projected_too():
    variables = [keras.Variable([3.0]), keras.Variable([3.0])]
    optimizer = sgd(max_weight=1.0)
    optimizer.build(variables)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        apply_all(optimizer, variables, [[np.zeros(1, "float32"), None]])
    assert [float(v.numpy()[0]) for v in variables] == [1.0, 1.0]


@pytest.mark.parametrize("compiled", [False, True])
def test_micro_batches_project_nothing(compiled):
    variables = make_variables()
    optimizer = sgd(0.2, max_weight=0.05, gradient_accumulation_steps=3)
    step = compiled_step(optimizer, variables) if compiled else None
    start = values(variables)
    for i, gradients in enumerate(gradient_stream(3)):
        if i < 2:
            assert_identical(values(variables), start)
        if step:
            step(gradients)
        else:
            apply_all(optimizer, variables, [gradients])
    assert max(np.abs(value).max() for value in values(variables)) == np.float32(0.05)


def test_micro_batches_without_some_gradients_project_nothing():
    variables = [keras.Variable([3.0]), keras.Variable([3.0])]
    optimizer = sgd(max_weight=1.0, gradient_accumulation_steps=2)
    optimizer.build(variables)
    for expected in ([3.0, 3.0], [1.0, 1.0]):
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            apply_all(optimizer, variables, [[np.zeros(1, "float32"), None]])
        assert [float(v.numpy()[0]) for v in variables] == expected


def test_accumulation_equals_the_whole_batch_in_fit():
    def make(steps):
        return make_model(sgd(0.05, max_weight=0.3, gradient_accumulation_steps=steps))

    micro, whole = make(2), make(None)
    fit(micro, batch_size=4)
    fit(whole, batch_size=8)
    assert_close(micro.get_weights(), whole.get_weights(), rtol=5e-6)
    assert max(np.abs(w).max() for w in whole.get_weights()) == np.float32(0.3)


def test_moving_averages_are_of_projected_weights():
    variable = keras.Variable([0.0])
    optimizer = sgd(1.0, max_weight=0.5, use_ema=True, ema_momentum=0.5)
    average = None
    for _ in range(4):
        apply_all(optimizer, [variable], [[np.float32([-10.0])]])
        average = 0.5 if average is None else 0.5 * average + 0.25
        found = optimizer._model_variables_moving_average[0].numpy()
        np.testing.assert_allclose(found, [average])


def test_weight_decay_comes_before():
    variable = keras.Variable([10.0])
    optimizer = sgd(0.1, max_weight=0.5, weight_decay=0.5)
    apply_all(optimizer, [variable], [[np.float32([0.0])]])
    assert float(variable.numpy()[0]) == 0.5


@pytest.mark.parametrize("arguments", [{}, {"run_eagerly": True}])
def test_fit(arguments):
    model = make_model(sgd(0.05, max_weight=0.3), **arguments)
    fit(model)
    assert max(np.abs(w).max() for w in model.get_weights()) == np.float32(0.3)


def test_assigned_in_the_middle_and_resumed(tmp_path):
    model = make_model(ClippedOptimizer("adam", max_weight=0.3))
    fit(model)
    model.optimizer.max_weight = 0.2
    fit(model, epochs=1)
    assert max(np.abs(w).max() for w in model.get_weights()) == np.float32(0.2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.max_weight.numpy()) == np.float32(0.2)
    fit(model)
    fit(loaded)
    assert_identical(loaded.get_weights(), model.get_weights())
    assert_identical(values(loaded.optimizer.variables), values(model.optimizer.variables))


def test_a_schedule_counts_updates():
    halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    variable = keras.Variable([9.0])
    optimizer = sgd(max_weight=halving, gradient_accumulation_steps=2)
    seen = []
    for _ in range(6):
        apply_all(optimizer, [variable], [[np.float32([0.0])]])
        seen.append(float(variable.numpy()[0]))
    assert seen == [9.0, 1.0, 1.0, 0.5, 0.5, 0.25]
    assert optimizer.max_weight is halving


@pytest.mark.parametrize("bound", [1, True, np.float64(1.0), np.int32(1)])
def test_a_callable_may_return_any_number(bound):
    variable = keras.Variable([9.0, -0.5])
    apply_all(sgd(max_weight=lambda step: bound), [variable], [[np.zeros(2, "float32")]])
    np.testing.assert_array_equal(variable.numpy(), [1.0, -0.5])


@pytest.mark.parametrize("name", ["kernel", "embeddings"])
def test_empty_variables_have_no_fan_in(name):
    variables = [keras.Variable(np.zeros((0, 3)), name=name), keras.Variable([9.0])]
    gradients = [np.zeros((0, 3), "float32"), np.zeros(1, "float32")]
    bound = WeightClipping(0.5, scale_by_fan_in=True)
    apply_all(sgd(max_weight=bound), variables, [gradients])
    assert variables[0].shape == (0, 3)
    np.testing.assert_array_equal(variables[1].numpy(), [0.5])


def three():
    return [keras.Variable([5.0], name=name) for name in ("low", "high", "other")]


def projected(max_weight, variables):
    optimizer = sgd(max_weight=max_weight)
    apply_all(optimizer, variables, [[np.zeros(1, "float32")] * len(variables)])
    return optimizer, [float(v.numpy()[0]) for v in variables]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"low": 0.5, ".*gh": WeightClipping(2.0)}, [0.5, 2.0, 5.0]),
        ({"low": None, "default": 1.0}, [5.0, 1.0, 1.0]),
        ({".*": 1.0, "high": 3.0}, [1.0, 3.0, 1.0]),
        ({"low": lambda step: 0.25}, [0.25, 5.0, 5.0]),
    ],
)
def test_groups(groups, expected):
    groups = {
        key: WeightClipping(**value.get_config()) if isinstance(value, WeightClipping) else value
        for key, value in groups.items()
    }
    assert projected(groups, three())[1] == expected


def test_groups_are_assigned_saved_and_named_apart():
    optimizer, found = projected({"low": 0.5, "high": 2.0}, three())
    assert found == [0.5, 2.0, 5.0]
    optimizer.max_weight["high"].max_weight = 1.0
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    again = keras.saving.deserialize_keras_object(config)
    assert {k: v.max_weight for k, v in again.max_weight.items()} == {"low": 0.5, "high": 1.0}
    _, own = saved(optimizer)
    names = {"weights.weight_group_0_max_weight", "weights.weight_group_1_max_weight"}
    assert names <= set(own)
    with pytest.raises(AttributeError, match=r"optimizer.max_weight\['pattern'\].max_weight"):
        optimizer.max_weight = 0.1


@pytest.mark.parametrize("max_weight", [None, 0.5, {"a": 1.0, "default": None}])
def test_config_round_trip(max_weight):
    config = sgd(max_weight=max_weight).get_config()
    again = ClippedOptimizer.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config


def test_config_of_a_schedule_and_of_fan_in():
    halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    config = sgd(max_weight=WeightClipping(halving, scale_by_fan_in=True)).get_config()
    again = ClippedOptimizer.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert again.max_weight.get_config() == halving.get_config()


def test_optimizers_saved_without_bounds_load():
    config = sgd().get_config()
    del config["max_weight"]
    assert ClippedOptimizer.from_config(config).max_weight is None


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras before 3.14")
@pytest.mark.parametrize("steps", [None, 2])
def test_members_of_a_multi_optimizer(steps):
    members = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(1.0, gradient_accumulation_steps=steps)
    )
    members["low"] = keras.optimizers.SGD(0.0, gradient_accumulation_steps=steps)
    inner = keras.optimizers.MultiOptimizer(members)
    optimizer = ClippedOptimizer(inner, INFINITE, max_weight={"low": 2.0, "high": 1.0})
    variables = three()
    gradients = [np.float32([0.5])] * 3
    if steps:
        apply_all(optimizer, variables, [gradients])
        assert [float(v.numpy()[0]) for v in variables] == [5.0, 5.0, 5.0]
    apply_all(optimizer, variables, [gradients])
    assert [float(v.numpy()[0]) for v in variables] == [2.0, 1.0, 4.5]


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="tf.Variable is TensorFlow's")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("replicas", [1, LOGICAL_DEVICES])
def test_variables_of_tensorflow(compiled, replicas):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(replicas)], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        native, of_keras = tf.Variable([3.0, -0.1], name="nu"), keras.Variable([4.0])
        optimizer = sgd(1.0, max_weight={"nu.*": 0.5, "default": 2.0})
        optimizer.build([native, of_keras])

    def replica():
        gradients = [tf.constant([1.0, 0.1]), tf.constant([1.0])]
        optimizer.apply(gradients, [native, of_keras])

    def step():
        strategy.run(replica)

    (tf.function(step) if compiled or replicas > 1 else step)()
    np.testing.assert_allclose(native.numpy(), [0.5, max(-0.1 - 0.1 * replicas, -0.5)])
    np.testing.assert_allclose(of_keras.numpy(), [2.0])


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")
@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [{"use_ema": True, "ema_momentum": 0.5}])
def test_two_replicas_equal_one_device(options):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(LOGICAL_DEVICES)], tf.distribute.ReductionToOneDevice()
    )

    def train():
        inner = keras.optimizers.SGD(0.1, **options)
        optimizer = ClippedOptimizer(inner, 0.5, max_weight=0.3)
        return make_model(optimizer, jit_compile=False)

    def run(model):
        batches = tf.data.Dataset.from_tensor_slices(data()).batch(16)
        model.fit(batches, epochs=4, shuffle=False, verbose=0)
        return model

    with strategy.scope():
        mirrored = train()
    mirrored, single = run(mirrored), run(train())
    assert max(np.abs(w).max() for w in single.get_weights()) == np.float32(0.3)
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=2e-6)
    for variable in mirrored.trainable_variables:
        copies = [copy.numpy() for copy in variable.value.values]
        assert len(copies) == LOGICAL_DEVICES
        assert_identical(copies[1:], copies[:1])
    if options:
        of_mirrored, of_single = (
            values(model.optimizer.inner_optimizer._model_variables_moving_average)
            for model in (mirrored, single)
        )
        assert_close(of_mirrored, of_single, rtol=2e-6)


@pytest.mark.parametrize(
    ("max_weight", "error", "message"),
    [
        ("0.1", TypeError, "max_weight must be a number that is at least 0.*max_weight='0.1'"),
        ([0.1], TypeError, r"dict of path patterns to these. Received: max_weight=\[0.1\]"),
        (True, TypeError, "max_weight must be a number.*True"),
        (-0.1, ValueError, "max_weight must be a number that is at least 0.*-0.1"),
        (float("nan"), ValueError, "max_weight must be a number.*nan"),
        ({}, ValueError, "max_weight={} limits no variable"),
        ({3: 0.1}, TypeError, "max_weight must name variables by str.*Received: 3"),
        ({"(": 0.1}, ValueError, "max_weight has the pattern .* not a regular expression"),
        ({"a": {"b": 0.1}}, TypeError, "Received: max_weight={'b': 0.1}"),
    ],
)
def test_bad_bounds(max_weight, error, message):
    with pytest.raises(error, match=message):
        sgd(max_weight=max_weight)


def test_bad_use():
    with pytest.raises(TypeError, match="scale_by_fan_in must be True or False.*'yes'"):
        WeightClipping(scale_by_fan_in="yes")
    clipping = WeightClipping()
    with pytest.raises(ValueError, match="one WeightClipping for two groups"):
        sgd(max_weight={"a": clipping, "b": clipping})
    sgd(max_weight=clipping)
    with pytest.raises(ValueError, match="belongs to the optimizer 'clipped_optimizer.*' already"):
        sgd(max_weight=clipping)
    with pytest.raises(ValueError, match=r"max_weight has patterns that .*'low'"):
        projected({"wrong": 0.1}, three())
    with pytest.raises(AttributeError, match="of None, make a new optimizer"):
        sgd().max_weight = 0.1
    optimizer, _ = projected(0.1, three())
    with pytest.raises(TypeError, match="max_weight cannot change between a number and a function"):
        optimizer.max_weight = lambda step: 0.1
