"""One update moves the weights by a limited share of their norm, in its own direction."""

import json

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, UpdateClipping
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    SHAPES,
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import data, make_model
from tests.support.optimizers import FEW_OR_ALL, TWO_OR_ALL, halving_schedule, keras_has, maker

INFINITE = float("inf")
RATIO = 0.05


def norm(arrays):
    return float(np.sqrt(sum(np.sum(np.square(np.float64(array))) for array in arrays)))


def limited(before, after, ratio, minimum_rms=0.01):
    """The formula, in float64, over all arrays together."""
    before, after = ([np.float64(array) for array in arrays] for arrays in (before, after))
    change = [new - old for new, old in zip(after, before, strict=True)]
    size = sum(array.size for array in before)
    limit = ratio * max(norm(before), minimum_rms * np.sqrt(size))
    factor = min(1.0, limit / norm(change))
    return [old + factor * part for old, part in zip(before, change, strict=True)], factor


def wrapped(inner, ratio=RATIO, max_norm=INFINITE, **options):
    return ClippedOptimizer(inner, max_norm, max_update_ratio=ratio, **options)


def sgd(rate=0.3, ratio=RATIO, **options):
    return wrapped(keras.optimizers.SGD(rate, **options), ratio)


class NumPySGD:
    def __init__(self, rate, momentum):
        self.rate, self.momentum, self.velocity = rate, momentum, None

    def step(self, weights, gradients):
        velocity = self.velocity or [np.zeros_like(w) for w in weights]
        pairs = zip(velocity, gradients, strict=True)
        self.velocity = [self.momentum * v - self.rate * g for v, g in pairs]
        return [w + v for w, v in zip(weights, self.velocity, strict=True)]


class NumPyAdam:
    def __init__(self, rate):
        self.rate, self.count = rate, 0
        self.mean = self.square = None

    def step(self, weights, gradients):
        self.count += 1
        mean = self.mean or [np.zeros_like(w) for w in weights]
        square = self.square or [np.zeros_like(w) for w in weights]
        self.mean = [0.9 * m + 0.1 * g for m, g in zip(mean, gradients, strict=True)]
        self.square = [0.999 * s + 0.001 * g * g for s, g in zip(square, gradients, strict=True)]
        rate = self.rate * np.sqrt(1 - 0.999**self.count) / (1 - 0.9**self.count)
        parts = zip(weights, self.mean, self.square, strict=True)
        return [w - rate * m / (np.sqrt(s) + 1e-7) for w, m, s in parts]


RULES = {
    "sgd": (lambda: keras.optimizers.SGD(0.02, momentum=0.9), lambda: NumPySGD(0.02, 0.9), 0.035),
    "adam": (lambda: keras.optimizers.Adam(0.05), lambda: NumPyAdam(0.05), 0.013),
}


@pytest.mark.parametrize("name", RULES)
def test_follows_numpy_for_200_updates(name):
    make, emulate, ratio = RULES[name]
    variables, rule = make_variables(), emulate()
    optimizer = wrapped(make(), ratio)
    step = compiled_step(optimizer, variables)
    expected, factors = [np.float64(array) for array in values(variables)], []
    for gradients in gradient_stream(200):
        expected, factor = limited(expected, rule.step(expected, gradients), ratio)
        factors.append(factor)
        step(gradients)
    assert 0.3 < np.mean(np.less(factors, 1.0)) < 0.7
    assert_close(values(variables), expected, rtol=1e-5)
    assert_close([optimizer.history["update_scale"]], [np.array(factors)], rtol=1e-5)


def assert_changes_no_bit(name, **compile_options):
    results = []
    for ratio in (None, 1e6):
        variables = make_variables()
        step = compiled_step(wrapped(maker(name)(), ratio), variables, **compile_options)
        for gradients in gradient_stream(4):
            step(gradients)
        results.append(values(variables))
    assert_identical(*results)


@pytest.mark.parametrize("name", FEW_OR_ALL)
def test_a_limit_never_reached_changes_no_bit(name):
    assert_changes_no_bit(name)


@pytest.mark.parametrize("name", TWO_OR_ALL)
def test_a_limit_never_reached_changes_no_bit_by_xla(name):
    assert_changes_no_bit(name, jit_compile=True)


@pytest.mark.parametrize("rate", [0.3, 1e6, 1e-3])
def test_norm_and_direction_of_the_change(rate):
    variables = make_variables()
    before, gradients = values(variables), gradient_stream(1)[0]
    apply_all(sgd(rate), variables, [gradients])
    bare = make_variables()
    apply_all(keras.optimizers.SGD(rate), bare, [gradients])
    expected, factor = limited(before, values(bare), RATIO)
    assert (factor < 1) == (rate > 0.01)
    assert_close(values(variables), expected, rtol=1e-6)
    change = [new - old for new, old in zip(values(variables), before, strict=True)]
    assert norm(change) <= RATIO * norm(before) * (1 + 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_to_its_rounding(dtype):
    variables = make_variables(dtype=dtype)
    before = values(variables)
    apply_all(sgd(1.0), variables, gradient_stream(1, dtype=dtype))
    change = [np.float64(n) - np.float64(o) for n, o in zip(values(variables), before, strict=True)]
    rounding = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    assert norm(change) == pytest.approx(RATIO * norm(before), abs=rounding * norm(before))


def test_each_variable_by_itself():
    variables = make_variables()
    before, gradients = values(variables), gradient_stream(1)[0]
    apply_all(sgd(0.3, UpdateClipping(RATIO, per_variable=True)), variables, [gradients])
    for old, new, gradient in zip(before, values(variables), gradients, strict=True):
        expected, _ = limited([old], [old - np.float32(0.3) * gradient], RATIO)
        assert_close([new], expected)


def test_groups_by_path_have_a_norm_each():
    variables = make_variables()
    before, gradients = values(variables), gradient_stream(1)[0]
    ratios = {".*kernel": 0.01, "bias": None, "default": UpdateClipping(0.1)}
    optimizer = sgd(0.3, ratios)
    apply_all(optimizer, variables, [gradients])
    after = [b - np.float32(0.3) * g for b, g in zip(before, gradients, strict=True)]
    expected = list(after)
    for members, ratio in (((0, 2), 0.01), ((3,), 0.1)):
        group, _ = limited([before[i] for i in members], [after[i] for i in members], ratio)
        for place, array in zip(members, group, strict=True):
            expected[place] = array
    assert_close(values(variables), expected)
    concerned = [0, 2, 3]
    change = norm([after[i] - before[i] for i in concerned])
    moved = norm([values(variables)[i] - before[i] for i in concerned])
    history = optimizer.history
    ratio = change / norm([before[i] for i in concerned])
    assert history["update_ratio"] == pytest.approx([ratio], rel=1e-5)
    assert history["update_scale"] == pytest.approx([moved / change], rel=1e-4)


@pytest.mark.parametrize("minimum_rms", [0.01, 0.5, 0.0])
def test_weights_of_zero_move_by_the_minimum(minimum_rms):
    variables = [keras.Variable(np.zeros(shape)) for shape in SHAPES.values()]
    rule = UpdateClipping(RATIO, minimum_rms=minimum_rms)
    apply_all(sgd(0.3, rule), variables, gradient_stream(1))
    size = sum(np.prod(shape) for shape in SHAPES.values())
    assert norm(values(variables)) == pytest.approx(RATIO * minimum_rms * np.sqrt(size), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, INFINITE])
def test_what_is_not_finite_shows(bad):
    variables = make_variables()
    gradients = gradient_stream(1)[0]
    gradients[1][0] = bad
    bare = make_variables()
    apply_all(keras.optimizers.SGD(0.3), bare, [gradients])
    apply_all(sgd(0.3), variables, [gradients])
    assert_identical(values(variables), values(bare))


def test_an_update_above_the_range_is_limited():
    variables = make_variables()
    before = values(variables)
    gradients = [np.full(g.shape, 1e38, "float32") for g in gradient_stream(1)[0]]
    apply_all(sgd(1.0), variables, [gradients])
    change = [new - old for new, old in zip(values(variables), before, strict=True)]
    # Its norm counts as the largest number.
    share = float(np.finfo("float32").max) / norm(gradients)
    assert norm(change) == pytest.approx(RATIO * norm(before) / share, rel=1e-4)


@pytest.mark.parametrize("by_xla", [False, True])
@pytest.mark.parametrize("size", [1e37, 3e38])
def test_a_factor_below_the_range_is_kept_apart_when_compiled(size, by_xla):
    """A compiler must not multiply two factors before it multiplies the change."""
    variable = keras.Variable(np.ones(2, "float32"))
    step = compiled_step(sgd(1.0, 0.01), [variable], jit_compile=by_xla)
    step([np.float32([size, 0.0])])
    expected = 1.0 - 0.01 * np.sqrt(2.0)
    np.testing.assert_allclose(variable.numpy(), [expected, 1.0], rtol=1e-6)


@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX has no float64 by default")
@pytest.mark.parametrize("per_variable", [False, True])
def test_variables_of_several_dtypes(per_variable):
    start = [np.full(3, 2.0, dtype) for dtype in ("float32", "float64", "float16")]
    variables = [keras.Variable(array, dtype=array.dtype.name) for array in start]
    optimizer = sgd(1.0, UpdateClipping(0.01, per_variable=per_variable))
    step = compiled_step(optimizer, variables)
    step([np.ones_like(array) for array in start])
    for variable in variables:
        resolution = np.finfo(variable.dtype).eps
        np.testing.assert_allclose(variable.numpy(), 2.0 - 0.02, rtol=max(1e-6, resolution))


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_a_long_variable_is_measured_in_its_whole_range(scale):
    generator = np.random.default_rng(0)
    # More entries than torch subtracts at a time, and a remainder.
    start = (scale * generator.normal(size=(601, 907))).astype("float32")
    gradient = (scale * generator.normal(size=start.shape)).astype("float32")
    variable = keras.Variable(start)
    optimizer = sgd(1.0, UpdateClipping(RATIO, minimum_rms=0.0))
    apply_all(optimizer, [variable], [[gradient]])
    new, factor = limited([start], [start - gradient], RATIO, minimum_rms=0.0)
    change = np.float64(values([variable])[0]) - start
    np.testing.assert_allclose(change, new[0] - start, rtol=1e-4, atol=scale * 1e-5)
    assert norm([change]) == pytest.approx(RATIO * norm([start]), rel=1e-5)
    history = optimizer.history
    assert history["update_scale"][0] == pytest.approx(factor, rel=1e-5)
    assert history["update_ratio"][0] == pytest.approx(RATIO / factor, rel=1e-5)


def test_decay_is_a_part_of_the_change():
    variables = make_variables()
    before = values(variables)
    zero = [np.zeros_like(array) for array in before]
    apply_all(sgd(0.3, weight_decay=0.9), variables, [zero])
    expected = [(1 - RATIO) * array for array in before]
    assert_close(values(variables), expected)


def test_averages_and_bounds_come_after_the_limit():
    variables = make_variables()
    before = values(variables)
    inner = keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=1)
    optimizer = wrapped(inner, max_weight=0.4)
    gradients = gradient_stream(1)[0]
    apply_all(optimizer, variables, [gradients])
    after = [b - np.float32(0.3) * g for b, g in zip(before, gradients, strict=True)]
    new, _ = limited(before, after, RATIO)
    new = [np.clip(array, -0.4, 0.4) for array in new]
    # Keras starts its average at the first value.
    assert_close(values(variables), new)


def test_constraints_come_after_the_limit():
    class Doubled(keras.constraints.Constraint):
        def __call__(self, w):
            return 2.0 * w

    variable = keras.Variable([3.0, 4.0])
    variable.constraint = Doubled()
    apply_all(sgd(1.0, 0.1), [variable], [[np.float32([30.0, 40.0])]])
    assert_close(values([variable]), [np.float32([5.4, 7.2])])


def test_micro_batches_are_no_updates():
    stream = gradient_stream(6)
    together = [
        [np.mean(arrays, axis=0) for arrays in zip(*stream[i : i + 3], strict=True)] for i in (0, 3)
    ]
    results = []
    for batches, steps in ((stream, 3), (together, None)):
        variables = make_variables()
        optimizer = sgd(0.3, gradient_accumulation_steps=steps)
        apply_all(optimizer, variables, batches)
        assert len(optimizer.history["update_ratio"]) == 2
        results.append(values(variables))
    assert_close(*results, rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_skipped_updates_are_no_updates(compiled):
    stream = gradient_stream(4)
    bad = [np.full_like(array, np.nan) for array in stream[0]]
    results = []
    for batches in (stream, [*stream[:2], bad, *stream[2:]]):
        variables = make_variables()
        optimizer = wrapped(keras.optimizers.Adam(0.1), nonfinite="skip")
        if compiled:
            step = compiled_step(optimizer, variables)
            for gradients in batches:
                step(gradients)
        else:
            apply_all(optimizer, variables, batches)
        results.append((values(variables), optimizer.history))
    (plain, kept), (with_bad, history) = results
    assert_identical(plain, with_bad)
    assert np.isnan(history["update_ratio"]).tolist() == [False, False, True, False, False]
    for name in ("update_ratio", "update_scale"):
        np.testing.assert_array_equal(np.delete(history[name], 2), kept[name])


@pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
def test_the_members_of_a_multi_optimizer_have_one_limit():
    def members():
        first, second = keras.optimizers.SGD(0.3), keras.optimizers.SGD(0.1, use_ema=True)
        mapping = keras.optimizers.OptimizerMap(first, {"bias|scale": second})
        return keras.optimizers.MultiOptimizer(mapping)

    variables, bare = make_variables(), make_variables()
    before, stream = values(variables), gradient_stream(1)
    apply_all(wrapped(members()), variables, stream)
    apply_all(members(), bare, stream)
    expected, factor = limited(before, values(bare), RATIO)
    assert factor < 1
    assert_close(values(variables), expected)


def test_ratio_is_a_schedule_or_a_function_and_never_negative():
    for given in (halving_schedule(), lambda step: 0.05 * 0.5 ** keras.ops.cast(step, "float32")):
        variables = make_variables()
        optimizer = sgd(1e3, given)
        apply_all(optimizer, variables, gradient_stream(5))
        history = optimizer.history
        first, last = (history["update_ratio"] * history["update_scale"])[[0, 4]]
        assert last < first == pytest.approx(0.05, rel=1e-5)
    variables = make_variables()
    before = values(variables)
    apply_all(sgd(1.0, lambda step: -1.0), variables, gradient_stream(1))
    assert_identical(values(variables), before)


def test_a_number_is_assigned_in_a_compiled_step():
    variables = make_variables()
    optimizer = sgd(1e3)
    step = compiled_step(optimizer, variables)
    stream = gradient_stream(2)
    step(stream[0])
    before = values(variables)
    optimizer.max_update_ratio = 0.001
    step(stream[1])
    change = [new - old for new, old in zip(values(variables), before, strict=True)]
    assert norm(change) == pytest.approx(0.001 * norm(before), rel=1e-3)


def test_infinity_observes_and_none_measures_nothing():
    stream = gradient_stream(3)
    variables, bare = make_variables(), make_variables()
    observing = sgd(0.3, INFINITE)
    apply_all(observing, variables, stream)
    silent = sgd(0.3, None)
    apply_all(silent, bare, stream)
    assert_identical(values(variables), values(bare))
    assert np.all(observing.history["update_scale"] == 1.0)
    assert np.all(observing.history["update_ratio"] > 0.0)
    assert not {"update_ratio", "update_scale"} & {*silent.history}
    assert len(silent.variables) == len(observing.variables) - 2


def test_config_and_resume():
    first = {".*kernel": UpdateClipping(0.01, per_variable=True, minimum_rms=0.1), "default": 0.1}
    for ratio in (0.01, INFINITE, UpdateClipping(0.2), first, halving_schedule()):
        optimizer = sgd(0.3, ratio)
        config = json.loads(json.dumps(optimizer.get_config(), allow_nan=False))
        again = ClippedOptimizer.from_config(config)
        assert again.get_config() == optimizer.get_config()
    results = []
    for interrupted in (False, True):
        model = make_model(wrapped(keras.optimizers.Adam(1.0), 0.01))
        inputs, targets = data()
        for _ in range(2):
            model.fit(inputs, targets, batch_size=4, shuffle=False, verbose=0)
            if interrupted:
                model.optimizer.max_update_ratio = 0.02
                state = {}
                model.optimizer._saved_state.save_own_variables(state)
                model.optimizer.max_update_ratio = 0.01
                model.optimizer._saved_state.load_own_variables(state)
                assert float(model.optimizer.max_update_ratio) == np.float32(0.02)
                model.optimizer.max_update_ratio = 0.01
        results.append((values(model.trainable_variables), model.optimizer.history))
    assert_identical(results[0][0], results[1][0])
    for name, column in results[0][1].items():
        np.testing.assert_array_equal(column, results[1][1][name])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (-0.1, ValueError, "max_update_ratio must be a number that is at least 0"),
        (float("nan"), ValueError, "max_update_ratio must be"),
        ("0.1", TypeError, "keras_clip.UpdateClipping"),
        ({}, ValueError, "limits no variable"),
        ({"(": 0.1}, ValueError, "regular expression"),
    ],
)
def test_what_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        wrapped("sgd", given)


def test_a_rule_belongs_to_one_optimizer():
    rule = UpdateClipping(0.1)
    wrapped("sgd", rule)
    with pytest.raises(ValueError, match="belongs to the optimizer"):
        wrapped("sgd", rule)
    with pytest.raises(TypeError, match="per_variable must be True or False"):
        UpdateClipping(0.1, per_variable=1)
    with pytest.raises(ValueError, match="minimum_rms must be"):
        UpdateClipping(0.1, minimum_rms=-1.0)


def test_a_misspelt_pattern_raises_at_the_first_step():
    with pytest.raises(ValueError, match="max_update_ratio has patterns that match no variable"):
        apply_all(sgd(0.3, {"kernle": 0.1}), make_variables(), gradient_stream(1))


def embedding_model():
    return keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(20, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1, kernel_initializer="zeros"),
        ]
    )


def half_precision_model():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, activation="tanh", dtype="mixed_float16"),
            keras.layers.Dense(1, dtype="mixed_float16"),
        ]
    )


@pytest.mark.parametrize("make", [embedding_model, half_precision_model])
@pytest.mark.parametrize("scaled", [False, True])
def test_whole_steps_of_fit(make, scaled):
    keras.utils.set_random_seed(4)
    model = make()
    optimizer = wrapped(keras.optimizers.SGD(0.3, momentum=0.9), 0.03)
    outer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(outer if scaled else optimizer, loss="mse", auto_scale_loss=False)
    inputs = np.random.default_rng(0).integers(0, 20, size=(8, 3))
    for _ in range(6):
        before = values(model.trainable_variables)
        model.train_on_batch(inputs, np.ones((8, 1)))
        change = [n - o for n, o in zip(values(model.trainable_variables), before, strict=True)]
        record = optimizer.history
        moved = record["update_ratio"][-1] * record["update_scale"][-1]
        assert norm(change) / norm(before) == pytest.approx(moved, rel=1e-4)
        assert moved <= 0.03 * (1 + 1e-5)
    assert (record["update_scale"] < 1).any()
