"""Norms of one variable, root mean squares, values and p-norms, against their references."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_clip import ClipByBlockRMS, ClipByGlobalNorm, ClipByNorm, ClipByValue, ClippedOptimizer
from tests.reference import stateless as reference
from tests.support.clipping import clip_alone
from tests.support.generated import (
    assert_equal_to_rounding,
    float64_of,
    gradients,
    in_their_dtypes,
)
from tests.support.gradient_stream import apply_all, assert_close
from tests.support.vector_files import Vectors

pytestmark = pytest.mark.exhaustive  # arithmetic, the same on every Keras

P_NORM, BY_NORM = Vectors("p_norm.npz"), Vectors("by_norm.npz")
BY_VALUE, BLOCK_RMS = Vectors("by_value.npz"), Vectors("block_rms.npz")

# Each kind with its rule and a threshold that most generated gradients exceed.
RULES = {
    "by norm": (lambda: ClipByNorm(0.5), lambda g: reference.clip_by_norm(g, 0.5)),
    "by block rms": (lambda: ClipByBlockRMS(0.1), lambda g: reference.clip_by_block_rms(g, 0.1)),
    "by value": (lambda: ClipByValue(0.2), lambda g: reference.clip_by_value(g, -0.2, 0.2)),
    "by two values": (
        lambda: ClipByValue((-0.5, 0.01)),
        lambda g: reference.clip_by_value(g, -0.5, 0.01),
    ),
    "by 1-norm": (
        lambda: ClipByGlobalNorm(0.5, norm_type=1),
        lambda g: reference.clip_by_p_norm(g, 0.5, 1),
    ),
    "by 3-norm": (
        lambda: ClipByGlobalNorm(0.5, norm_type=3),
        lambda g: reference.clip_by_p_norm(g, 0.5, 3),
    ),
    "by largest entry": (
        lambda: ClipByGlobalNorm(0.5, norm_type=np.inf),
        lambda g: reference.clip_by_p_norm(g, 0.5, np.inf),
    ),
}
PER_VARIABLE = ["by norm", "by block rms", "by value", "by two values"]
every_rule = pytest.mark.parametrize("rule", RULES)
generated = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("case", P_NORM.cases)
def test_p_norm_vectors(case):
    parameters = P_NORM.cases[case]
    clipper = ClipByGlobalNorm(parameters["max_norm"], norm_type=float(parameters["p"]))
    clipped = clip_alone(clipper, P_NORM.arrays(case, "g"))
    assert_close(clipped, P_NORM.arrays(case, "f64_noeps"), rtol=1e-5)
    # torch divides by the norm plus 1e-6.
    assert_close(clipped, P_NORM.arrays(case, "torch"), rtol=1e-5)


@pytest.mark.parametrize("case", BY_NORM.cases)
def test_norm_vectors(case):
    clipped = clip_alone(ClipByNorm(BY_NORM.cases[case]["clip_norm"]), BY_NORM.arrays(case, "g"))
    for implementation in ("tf", "keras", "f64"):
        assert_close(clipped, BY_NORM.arrays(case, implementation), rtol=3e-6)


@pytest.mark.parametrize("case", BY_VALUE.cases)
def test_value_vectors(case):
    low, high = BY_VALUE.cases[case]["lo"], BY_VALUE.cases[case]["hi"]
    inputs = BY_VALUE.arrays(case, "g")
    expected = BY_VALUE.arrays(case, "tf")
    pairs = [(low, high), high] if low == -high else [(low, high)]
    for max_value in pairs:
        for one, other in zip(clip_alone(ClipByValue(max_value), inputs), expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", BLOCK_RMS.cases)
def test_block_rms_vectors(case):
    clipper = ClipByBlockRMS(BLOCK_RMS.cases[case]["threshold"])
    clipped = clip_alone(clipper, BLOCK_RMS.arrays(case, "g"))
    for implementation in ("optax", "f64"):
        assert_close(clipped, BLOCK_RMS.arrays(case, implementation), rtol=3e-6)


def clip_generated(clipper, arrays):
    """Run in mixed dtypes; return the rounded inputs and the result, in float64."""
    tensors = in_their_dtypes(arrays)
    return float64_of(tensors), float64_of(clip_alone(clipper, tensors))


@every_rule
def test_generated_gradients(rule):
    make, expected = RULES[rule]

    @generated
    @given(gradients())
    def check(arrays):
        inputs, clipped = clip_generated(make(), arrays)
        assert_equal_to_rounding(clipped, expected(inputs))

    check()


@every_rule
def test_one_nan(rule):
    """A NaN stays in its variable; one norm for all spreads it to all variables."""

    @generated
    @given(gradients(special=np.nan), st.none())
    def check(arrays, _):
        inputs, clipped = clip_generated(RULES[rule][0](), arrays)
        for before, after in zip(inputs, clipped, strict=True):
            if np.isnan(before).any() or rule not in PER_VARIABLE:
                assert np.isnan(after).any()
            else:
                assert np.isfinite(after).all()

    check()


@pytest.mark.parametrize("rule", PER_VARIABLE)
def test_one_infinity(rule):
    """An infinity stays in its variable; a clip by value turns it into the bound."""

    @generated
    @given(gradients(special=np.inf))
    def check(arrays):
        inputs, clipped = clip_generated(RULES[rule][0](), arrays)
        for before, after in zip(inputs, clipped, strict=True):
            if np.isfinite(before).all() or "value" in rule:
                assert np.isfinite(after).all()
            else:
                assert np.isnan(after).all()

    check()


@every_rule
def test_never_enlarges_and_leaves_what_is_below_untouched(rule):
    make, expected = RULES[rule]

    @generated
    @given(gradients())
    def check(arrays):
        inputs, clipped = clip_generated(make(), arrays)
        for before, after, exact in zip(inputs, clipped, expected(inputs), strict=True):
            assert (np.abs(after) <= np.abs(before)).all() or "two" in rule
            if np.array_equal(before, exact):
                # TensorFlow flushes subnormal numbers in any arithmetic. It multiplies by 1 if
                # another variable is clipped.
                normal = np.abs(before) >= np.finfo("float32").tiny
                np.testing.assert_array_equal(after[normal], before[normal])

    check()


def test_float64_is_computed_in_float64(has_float64):
    if not has_float64:
        pytest.skip("JAX makes float64 only if told so when the process starts")
    gradient = np.array([3.0, 4.0]) * (1 + 1e-12)
    clipped = clip_alone(ClipByNorm(0.1), [gradient])
    np.testing.assert_allclose(clipped[0], reference.clip_by_norm([gradient], 0.1)[0], rtol=1e-15)


def test_variables_without_entries():
    for make, _ in RULES.values():
        clipped = clip_alone(make(), [np.zeros((0, 2), "float32"), np.float32([3.0])])
        assert clipped[0].shape == (0, 2)
        assert np.isfinite(clipped[1]).all()


def test_thresholds_may_be_schedules():
    halved = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    for make in (ClipByNorm, ClipByBlockRMS, ClipByValue, lambda s: ClipByValue((-1.0, s))):
        variable = keras.Variable(np.float32([0.0]))
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=make(halved))
        apply_all(optimizer, [variable], [[np.float32([100.0])]] * 3)
        np.testing.assert_allclose(variable.numpy(), [-1.75], rtol=1e-6)


def test_bounds_may_be_assigned():
    clipper = ClipByValue(1.0)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    variable = keras.Variable(np.float32([0.0]))
    apply_all(optimizer, [variable], [[np.float32([100.0])]])
    clipper.max_value = 0.5
    apply_all(optimizer, [variable], [[np.float32([100.0])]])
    np.testing.assert_array_equal(variable.numpy(), [-1.5])
    assert clipper.get_config() == {"max_value": 0.5}
    with pytest.raises(ValueError, match="max_value must be a number that is at least 0"):
        clipper.max_value = -1.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ClipByValue(-1.0), ValueError, "max_value must be .*Received: max_value=-1.0"),
        (lambda: ClipByValue("1"), TypeError, "max_value must be .*Received: max_value='1'"),
        (lambda: ClipByValue((1.0, -1.0)), ValueError, "low at most high.*(1.0, -1.0)"),
        (lambda: ClipByValue((1.0,)), ValueError, "low at most high"),
        (lambda: ClipByValue((None, 1.0)), TypeError, "max_value must be"),
        (lambda: ClipByNorm(-1.0), ValueError, "max_norm must be .*at least 0.*Received"),
        (lambda: ClipByBlockRMS(float("nan")), ValueError, "threshold must be .*Received"),
        (lambda: ClipByGlobalNorm(norm_type=0.5), ValueError, "norm_type must be .*at least 1"),
        (lambda: ClipByGlobalNorm(norm_type="2"), TypeError, "norm_type must be"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's sparse kind")
@pytest.mark.parametrize("rule", RULES)
def test_repeated_rows_count_as_their_sum(rule):
    import tensorflow as tf

    make, expected = RULES[rule]
    values = np.float32([[3.0, 0.02], [-1.0, 0.1], [3.0, 0.03], [0.01, -2.0]])
    indices = [2, 0, 2, 3]
    slices = tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([5, 2]))
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, indices, values)
    variable = keras.Variable(np.zeros((5, 2), "float32"))
    clipper = make()
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    optimizer.apply([slices], [variable])
    np.testing.assert_allclose(-variable.numpy(), expected([dense])[0], rtol=2e-6, atol=1e-8)
