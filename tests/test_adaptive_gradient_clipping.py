"""Adaptive gradient clipping: reference vectors, hazards of its arithmetic, its arguments."""

import itertools
import json

import keras
import numpy as np
import pytest

from keras_clip import AdaptiveGradientClipping, ClippedOptimizer, Update
from tests.reference import unitwise as reference
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model
from tests.support.vector_files import load

pytestmark = [
    pytest.mark.exhaustive,  # arithmetic, the same on every Keras
    # These variables have no layer on purpose, so they follow optax's rule.
    pytest.mark.filterwarnings("ignore:AdaptiveGradientClipping does not know the units"),
]


def clip(gradients, weights, dtype=None, **arguments):
    """Clip once, eagerly; results as NumPy arrays."""
    variables = [
        keras.Variable(weight, dtype=dtype or "float32", name=f"v{i}")
        for i, weight in enumerate(weights)
    ]
    clipper = AdaptiveGradientClipping(**arguments)
    clipper.build_for(variables)
    update = Update(as_tensors(gradients), variables, keras.ops.convert_to_tensor(0))
    return [np.array(keras.ops.convert_to_numpy(g)) for g in clipper.clip(update)]


def assert_as_in_vectors(actual, expected):
    np.testing.assert_allclose(
        actual, expected, rtol=5e-6, atol=max(1e-9, 1e-6 * np.abs(expected).max(initial=0))
    )


@pytest.mark.parametrize("case", load("agc.npz")[1])
def test_equals_optax(case):
    archive, cases = load("agc.npz")
    parameters = cases[case]
    indices = range(parameters["n"])
    axis = parameters.get("axis")
    clipped = clip(
        [archive[f"{case}/g{i}"] for i in indices],
        [archive[f"{case}/w{i}"] for i in indices],
        clipping=parameters["clipping"],
        eps=parameters["eps"],
        axes=None if axis is None else {"v0": axis},
    )
    for i in indices:
        stem = "optax" if axis is None else "optax_axis"
        for expected in (f"{case}/{stem}{i}", f"{case}/f64{i}", f"{case}/nfnets{i}"):
            if expected in archive:
                assert_as_in_vectors(clipped[i], archive[expected])


@pytest.mark.parametrize("case", ["default", "lam_big", "zero_w", "tiny_w", "zero_g"])
def test_equals_timm_with_its_units(case):
    archive, cases = load("agc_timm.npz")
    parameters = cases[case]
    indices = range(parameters["n"])
    gradients = [archive[f"{case}/g{i}"] for i in indices]
    all_but_last = {f"v{i}": tuple(range(g.ndim - 1)) for i, g in enumerate(gradients)}
    clipped = clip(
        gradients,
        [archive[f"{case}/w{i}"] for i in indices],
        clipping=parameters["clip_factor"],
        eps=parameters["eps"],
        axes={path: axes for path, axes in all_but_last.items() if axes},
    )
    for i in indices:
        assert_as_in_vectors(clipped[i], archive[f"{case}/timm_last{i}"])


@pytest.mark.parametrize("case", load("nonfinite.npz")[1])
def test_nonfinite_entries_stay_in_their_unit_as_in_optax(case):
    archive, cases = load("nonfinite.npz")
    indices = range(cases[case]["n"])
    clipped = clip(
        [archive[f"{case}/g{i}"] for i in indices], [archive[f"{case}/w{i}"] for i in indices]
    )
    for i in indices:
        expected = archive[f"{case}/agc_optax{i}"]
        if case == "overflow_sq":  # finite gradients, whose squares optax lets overflow
            assert np.isfinite(clipped[i]).all()
        else:
            np.testing.assert_allclose(clipped[i], expected, rtol=5e-6, atol=1e-9)


def test_a_nan_poisons_its_unit_only():
    weight = np.ones((3, 2), "float32")
    gradient = np.full((3, 2), 5.0, "float32")
    gradient[1, 0] = np.nan
    clipped = clip([gradient], [weight])[0]
    assert np.isnan(clipped[:, 0]).all()
    expected = reference.clip_units(gradient[:, 1], weight[:, 1], (0,))
    np.testing.assert_allclose(clipped[:, 1], expected, rtol=1e-6)
    weight[0, 1] = np.nan
    assert np.isnan(clip([np.full((3, 2), 5.0, "float32")], [weight])[0][:, 1]).all()


@pytest.mark.parametrize("eps", [1e-3, 1e-30, 0.0])
def test_every_magnitude(eps):
    """Each pair of magnitudes is a unit of its own, beside ordinary ones and zeros."""
    of_gradients = [0.0, 1e-38, 1e-35, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e19, 1e25, 1e30, 1e37]
    of_weights = [0.0, 1e-30, 1e-12, 1.0, 1e25]
    pairs = np.float32(list(itertools.product(of_gradients, of_weights)))
    gradient = np.float32([[0.3], [-1.0]]) * pairs[:, 0]
    weight = np.float32([[0.2], [0.1]]) * pairs[:, 1]
    clipped = clip([gradient], [weight], eps=eps)[0]
    expected = reference.clip_units(gradient, weight, (0,), eps=eps)
    # The smallest normal number: smaller ones may be flushed to zero.
    np.testing.assert_allclose(clipped, expected, rtol=2e-6, atol=1.2e-38)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_norms_are_taken_in_float32(dtype):
    gradient = keras.ops.cast([[300.0, 1e-4], [400.0, 0.0]], dtype)
    variable = keras.Variable([[300.0, 1.0], [400.0, 0.0]], dtype=dtype, name="v0")
    clipper = AdaptiveGradientClipping(0.1)
    clipper.build_for([variable])
    clipped = clipper.clip(Update([gradient], [variable], keras.ops.convert_to_tensor(0)))[0]
    assert keras.backend.standardize_dtype(clipped.dtype) == dtype
    clipped = keras.ops.convert_to_numpy(keras.ops.cast(clipped, "float32"))
    np.testing.assert_allclose(clipped[:, 0], [30.0, 40.0], rtol=8e-3)
    untouched = keras.ops.convert_to_numpy(keras.ops.cast(gradient, "float32"))[:, 1]
    assert_identical([clipped[:, 1]], [untouched])


def test_float64_is_not_rounded(backend):
    gradient, weight = np.array([[3.0], [4.0]]), np.array([[1.0], [0.3]])
    if backend == "jax":
        assert clip([gradient], [weight])[0].dtype == "float32"
        return
    clipped = clip([gradient], [weight], dtype="float64", clipping=0.1, eps=0.0)[0]
    np.testing.assert_allclose(
        clipped, reference.clip_units(gradient, weight, (0, 1), 0.1, 0.0), rtol=1e-14
    )


def test_units_at_or_below_their_limit_pass_bit_for_bit():
    weight = np.float32([[3.0, 1.0, 1.0], [4.0, 1.0, 1.0]])
    gradient = np.float32([[3.0, 7.0, 1e-42], [4.0, 9.0, -0.0]])
    clipped = clip([gradient], [weight], clipping=1.0)[0]
    assert_identical([clipped[:, [0, 2]]], [gradient[:, [0, 2]]])
    assert np.signbit(clipped[1, 2])
    assert np.linalg.norm(clipped[:, 1]) == pytest.approx(np.sqrt(2.0), rel=1e-6)


def test_idle_is_the_bare_optimizer_bit_for_bit():
    bare, idle = (
        make_model("adam"),
        make_model(ClippedOptimizer("adam", clipper=AdaptiveGradientClipping(1e6))),
    )
    fit(bare)
    fit(idle)
    assert_identical(idle.get_weights(), bare.get_weights())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_idle_steps_compiled_by_hand(jit_compile):
    results = []
    for optimizer in (
        keras.optimizers.Adam(0.05),
        ClippedOptimizer(keras.optimizers.Adam(0.05), clipper=AdaptiveGradientClipping(1e6)),
    ):
        variables = make_variables()
        step = compiled_step(optimizer, variables, jit_compile)
        for gradients in gradient_stream(5):
            step(gradients)
        results.append(values(variables))
    assert_identical(*results)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_run_equals_the_formula(jit_compile):
    """Ten steps, each clipped by the weights of that step."""
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(0.5), clipper=AdaptiveGradientClipping(0.05, eps=0.01)
    )
    variables = make_variables()
    expected = [np.float64(value) for value in values(variables)]
    axes = [(0,), (0,), (0,), ()]
    step = compiled_step(optimizer, variables, jit_compile)
    for gradients in gradient_stream(10):
        step(gradients)
        for i, gradient in enumerate(gradients):
            clipped = reference.clip_units(gradient, expected[i], axes[i], 0.05, 0.01)
            expected[i] = expected[i] - 0.5 * clipped
    for one, other in zip(values(variables), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5)


def test_clipping_can_be_reassigned_in_a_compiled_step():
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(1.0), clipper=AdaptiveGradientClipping(float("inf"))
    )
    variables = make_variables()
    step = compiled_step(optimizer, variables)
    gradients = gradient_stream(1)[0]
    before = values(variables)
    step(gradients)
    assert not np.array_equal(values(variables)[0], before[0])
    optimizer.clipper.clipping = 0.0
    before = values(variables)
    step(gradients)
    assert_identical(values(variables), before)


def test_a_schedule_of_the_step():
    halving = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(0.0), clipper=AdaptiveGradientClipping(halving)
    )
    seen = []
    clip_once = optimizer.clipper.clip

    def recording(update):
        clipped = clip_once(update)
        seen.append(float(keras.ops.norm(clipped[0])))
        return clipped

    optimizer.clipper.clip = recording
    variable = keras.Variable([3.0, 4.0])
    apply_all(optimizer, [variable], [[np.float32([300.0, 400.0])]] * 3)
    np.testing.assert_allclose(seen, [5.0, 2.5, 1.25], rtol=1e-6)


def test_excluded_variables_pass():
    gradients = [np.float32([[5.0], [6.0]]), np.float32([7.0])]
    weights = [np.ones((2, 1), "float32"), np.ones(1, "float32")]
    clipped = clip(gradients, weights, exclude="v1")
    assert_identical(clipped[1:], gradients[1:])
    assert np.linalg.norm(clipped[0]) == pytest.approx(0.01 * np.sqrt(2), rel=1e-6)
    assert_identical(clip(gradients, weights, exclude=["v.*", "v1"]), gradients)


def test_gradients_missing_and_in_another_order():
    shapes = [(2, 3), (3, 2), (2, 3)]
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype("float32") for shape in shapes]
    gradients = [rng.normal(size=shape).astype("float32") for shape in shapes]
    # Same shapes with other axes: a program for one must not serve the other.
    axes = {"v0": 0, "v1": (0, 1), "v2": -1}
    variables = [keras.Variable(w, name=f"v{i}") for i, w in enumerate(weights)]
    clipper = AdaptiveGradientClipping(axes=axes)
    clipper.build_for(variables)
    assert clipper.unit_axes == {"v0": (0,), "v1": (0, 1), "v2": (1,)}
    for positions in ([0, 1], [2, 1], [2], [0], [2, 0, 1]):
        update = Update(
            as_tensors([gradients[i] for i in positions]),
            [variables[i] for i in positions],
            keras.ops.convert_to_tensor(0),
        )
        for i, clipped in zip(positions, clipper.clip(update), strict=True):
            expected = reference.clip_units(gradients[i], weights[i], clipper.unit_axes[f"v{i}"])
            np.testing.assert_allclose(keras.ops.convert_to_numpy(clipped), expected, rtol=1e-6)


def test_no_axes_make_each_entry_a_unit_and_empty_variables_pass():
    gradient = np.float32([[5.0, 1e-4]])
    empty = np.zeros((0, 3), "float32")
    clipped = clip([gradient, empty], [np.ones((1, 2), "float32"), empty], axes={"v0": ()})
    np.testing.assert_allclose(clipped[0], [[0.01, 1e-4]], rtol=1e-6)
    assert clipped[1].shape == (0, 3)


def test_rank_six():
    shape = (2, 1, 2, 1, 2, 3)
    rng = np.random.default_rng(0)
    gradient, weight = (rng.normal(size=shape).astype("float32") for _ in range(2))
    expected = reference.clip_units(gradient, weight, (0, 1, 2, 3, 4))
    np.testing.assert_allclose(clip([gradient], [weight])[0], expected, rtol=2e-6)


def test_config_round_trip():
    clipper = AdaptiveGradientClipping(0.02, 0.1, axes={"a/.*": (0, 1), "b": 2}, exclude="c")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(clipper)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == clipper.get_config()
    assert again.axes == {"a/.*": (0, 1), "b": (2,)}
    assert (again.clipping, again.eps, again.exclude) == (0.02, 0.1, ["c"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clipping": "0.01"}, "clipping must be a number that is at least 0.*'0.01'"),
        ({"eps": None}, "eps must be a number that is at least 0. Received: eps=None"),
        ({"axes": (0, 1)}, r"axes must be a dict of path patterns.*Received: axes=\(0, 1\)"),
        ({"axes": {"a": "0"}}, r"values of axes must be an int or a tuple.*\{'a': '0'\}"),
        ({"axes": {"a": [True]}}, "values of axes must be an int or a tuple"),
        ({"axes": {"a": None}}, "values of axes must be an int or a tuple"),
        ({"exclude": 3}, "exclude must be a path pattern.*exclude=3"),
        ({"exclude": ["a", 3]}, "exclude must be a path pattern"),
    ],
)
def test_arguments_of_another_type(arguments, message):
    with pytest.raises(TypeError, match=message):
        AdaptiveGradientClipping(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"clipping": -0.1}, {"clipping": float("nan")}, {"eps": -1.0}]
)
def test_numbers_out_of_bounds(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be a number that is at"):
        AdaptiveGradientClipping(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": {"w.*": 0}}, r"axes has patterns that match no variable: \['w.*\['v0', 'v1'\]"),
        ({"axes": {"v.": 0, "v1|x": 0}}, "axes has several patterns that match .* 'v1'"),
        ({"axes": {"v0": 2}}, r"axes=\{'v0': \(2,\)\} does not fit .*'v0' of rank 2.*-2 to 1"),
        ({"axes": {"v0": (0, -2)}}, "give distinct axes"),
        ({"exclude": "w"}, r"exclude has patterns that match no variable: \['w'\]"),
        ({"exclude": "("}, "exclude has the pattern .* not a regular expression"),
    ],
)
def test_arguments_that_fit_no_variable(arguments, message):
    with pytest.raises(ValueError, match=message):
        clip([np.ones((2, 2)), np.ones(2)], [np.ones((2, 2)), np.ones(2)], **arguments)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="only TensorFlow has slices")
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), ()])
@pytest.mark.parametrize("compiled", [False, True])
def test_repeated_rows_of_an_embedding(axes, compiled):
    import tensorflow as tf

    layer = keras.layers.Embedding(5, 2)
    layer.build()
    table = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    layer.embeddings.assign(table)
    # Only the sum of row 2 is above its limit; row 4 stays below.
    rows = np.float32([[0.06, 0.0], [0.5, 0.2], [0.06, 0.01], [1e-4, 0.0]])
    slices = tf.IndexedSlices(tf.constant(rows), tf.constant([2, 0, 2, 4]), tf.constant([5, 2]))
    clipper = AdaptiveGradientClipping(0.1, axes={layer.embeddings.path: axes})
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    optimizer.build([layer.embeddings])
    kept = []
    clip = clipper.clip
    clipper.clip = lambda update: kept.append(clip(update)) or kept[-1]

    def step():
        optimizer.apply([slices], [layer.embeddings])
        return kept[-1][0]

    clipped = (tf.function(step) if compiled else step)()
    assert isinstance(clipped, tf.IndexedSlices)
    np.testing.assert_array_equal(clipped.indices, [2, 0, 2, 4])
    dense = tf.convert_to_tensor(slices).numpy()
    expected = reference.clip_units(dense, table, axes, 0.1)
    result = tf.convert_to_tensor(clipped).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(layer.embeddings.numpy(), table - expected, rtol=1e-5, atol=1e-7)
