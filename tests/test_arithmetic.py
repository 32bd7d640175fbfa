"""`global_norm` and `clip_by_global_norm` against float64 and against reference vectors."""

import math

import hypothesis.extra.numpy as hnp
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_clip
from keras_clip._seam import backend
from keras_clip.norms.global_norm import norms_of_tensors
from tests.reference import global_norm as reference
from tests.support.gradient_stream import as_tensors, assert_close, assert_identical
from tests.support.vector_files import load


def numpy_of(tensors):
    return [None if t is None else np.array(keras.ops.convert_to_numpy(t)) for t in tensors]


def vector_cases(name):
    return list(load(name)[1])


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def clip(gradients, max_norm):
    clipped, norm = keras_clip.clip_by_global_norm(as_tensors(gradients), max_norm)
    return numpy_of(clipped), float(norm)


@pytest.mark.parametrize("case", vector_cases("global_norm.npz"))
def test_equals_reference_implementations(case):
    archive, cases = load("global_norm.npz")
    parameters = cases[case]
    indices = range(parameters["n"])
    clipped, norm = clip([archive[f"{case}/g{i}"] for i in indices], parameters["max_norm"])
    assert norm == pytest.approx(float(archive[f"{case}/norm_f64"]), rel=2e-6)
    for implementation in ("optax", "tf", "keras", "f64"):
        assert_close(clipped, [archive[f"{case}/{implementation}{i}"] for i in indices], rtol=2e-6)


@pytest.mark.parametrize("case", vector_cases("nonfinite.npz"))
def test_nonfinite_norm_shows_as_in_tensorflow(case):
    archive, cases = load("nonfinite.npz")
    indices = range(cases[case]["n"])
    gradients = [archive[f"{case}/g{i}"] for i in indices]
    clipped, norm = clip(gradients, cases[case]["max_norm"])
    if case == "overflow_sq":  # finite gradients: TensorFlow's NaN is the defect
        assert norm == pytest.approx(reference.global_norm(gradients), rel=1e-6)
        assert_close(clipped, reference.clip_by_global_norm(gradients, 1.0))
    else:
        assert not math.isfinite(norm)
        assert_identical(clipped, [archive[f"{case}/gn_tf{i}"] for i in indices])


@pytest.mark.parametrize("max_norm", [1e-3, 0.53, 1.0, 1e9])
@pytest.mark.parametrize("magnitude", [1e-35, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e19, 1e25, 1e38])
def test_every_magnitude(magnitude, max_norm):
    gradients = [np.float32([0.3, -1.0]) * np.float32(magnitude), np.float32([[0.0, magnitude]])]
    clipped, norm = clip(gradients, max_norm)
    assert norm == pytest.approx(reference.global_norm(gradients), rel=1e-6)
    assert_close(clipped, reference.clip_by_global_norm(gradients, max_norm))


@pytest.mark.parametrize("magnitude", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_every_magnitude_of_float64(magnitude, backend):
    if backend == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            # JAX turns float64 into float32, unless float64 is enabled when the process starts.
            assert dtype_of(keras.ops.convert_to_tensor(np.ones(2))) == "float32"
            return
    gradients = [np.array([0.3, -1.0]) * magnitude, np.array([[0.0, magnitude]])]
    # 0.1 is another number in float32.
    clipped, norm = clip(gradients, 0.1)
    assert norm == pytest.approx(reference.global_norm(gradients), rel=1e-12)
    assert_close(clipped, reference.clip_by_global_norm(gradients, 0.1), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("value", [3e-6, 300.0, 6e4])
def test_half_precision_is_added_up_in_float32(dtype, value):
    gradients = [keras.ops.cast(keras.ops.full((5,), value, dtype="float32"), dtype)]
    true = reference.global_norm(
        [np.float64(numpy_of([keras.ops.cast(gradients[0], "float32")])[0])]
    )
    clipped, norm = keras_clip.clip_by_global_norm(gradients, true / 4)
    assert float(norm) == pytest.approx(true, rel=1e-6)
    assert dtype_of(clipped[0]) == dtype
    relative = {"float16": 5e-2 if value < 1e-3 else 1e-3, "bfloat16": 8e-3}[dtype]
    expected = np.float64(numpy_of([keras.ops.cast(gradients[0], "float32")])[0]) / 4
    np.testing.assert_allclose(
        numpy_of([keras.ops.cast(clipped[0], "float32")])[0], expected, rtol=relative
    )


def test_dtypes_mix():
    gradients = [
        keras.ops.cast([300.0, 400.0], "float16"),
        keras.ops.cast([1200.0], "float32"),
        None,
        keras.ops.cast([[0.0]], "bfloat16"),
    ]
    clipped, norm = keras_clip.clip_by_global_norm(gradients, 13.0)
    assert float(norm) == 1300.0
    assert [None if g is None else dtype_of(g) for g in clipped] == [
        "float16",
        "float32",
        None,
        "bfloat16",
    ]
    np.testing.assert_allclose(numpy_of(clipped)[0], [3.0, 4.0])


@pytest.mark.parametrize(
    "gradients", [[], [None], [np.zeros((0, 3), "float32")], [None, np.zeros(3, "float32")]]
)
def test_nothing_to_measure_is_zero(gradients):
    clipped, norm = clip(gradients, 1.0)
    assert norm == 0.0
    assert_identical([g for g in clipped if g is not None], [g for g in gradients if g is not None])


def test_none_and_empty_tensors_keep_their_place():
    gradients = [None, np.float32([3.0]), np.zeros((0,), "float32"), None, np.float32([[4.0]])]
    clipped, norm = clip(gradients, 1.0)
    assert norm == 5.0
    assert [g is None for g in clipped] == [True, False, False, True, False]
    np.testing.assert_allclose(clipped[4], [[0.8]], rtol=1e-6)


@pytest.mark.parametrize("max_norm", [5.0, 5.3, 1e30, math.inf])
def test_at_or_below_the_threshold_bit_for_bit(max_norm):
    gradients = [np.float32([3.0, 0.0, -0.0, 1e-42]), np.float32([[4.0]])]
    clipped, _ = clip(gradients, max_norm)
    assert_identical(clipped, gradients)
    assert np.signbit(clipped[0][2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_infinite_threshold_touches_nothing(bad):
    gradients = [np.float32([1.0, bad]), np.float32([2.0])]
    assert_identical(clip(gradients, math.inf)[0], gradients)


def test_zero_threshold_gives_zeros():
    assert_identical(clip([np.float32([3.0]), np.float32([0.0])], 0.0)[0], [np.float32([0.0])] * 2)
    assert_identical(clip([np.float32([1e38])], 0.0)[0], [np.float32([0.0])])


def test_threshold_may_be_a_tensor_and_counts_as_zero_below_zero():
    gradients = as_tensors([np.float32([3.0, 4.0])])
    clipped, _ = keras_clip.clip_by_global_norm(gradients, keras.ops.convert_to_tensor(0.5))
    np.testing.assert_allclose(numpy_of(clipped)[0], [0.3, 0.4], rtol=1e-6)
    clipped, _ = keras_clip.clip_by_global_norm(gradients, keras.ops.convert_to_tensor(-1.0))
    np.testing.assert_array_equal(numpy_of(clipped)[0], [0.0, 0.0])


@pytest.mark.parametrize("size", [65_535, 65_537, 3_000_000])
def test_large_tensors_lose_no_digits(size):
    gradient = np.random.default_rng(0).uniform(0.5, 1.5, size).astype("float32")
    norm = keras_clip.global_norm(as_tensors([gradient, gradient[:7]]))
    assert float(norm) == pytest.approx(reference.global_norm([gradient, gradient[:7]]), rel=1e-6)


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e30])
def test_small_and_large_tensors_at_every_magnitude(magnitude):
    generator = np.random.default_rng(0)
    gradients = [
        (magnitude * generator.normal(size=size)).astype("float32")
        for size in [(2,), (64, 64), (64, 65), (3, 5), (100_000,), ()]
    ]
    # Half precision cannot hold larger numbers.
    gradients.insert(1, np.float16([min(magnitude, 1.0), 0.0]))
    norm = keras_clip.global_norm(as_tensors(gradients))
    assert float(norm) == pytest.approx(reference.global_norm(gradients), rel=1e-6)


def test_a_norm_that_float32_cannot_hold_is_the_largest_number():
    """An infinite norm means that an entry is infinite."""
    norm = float(keras_clip.global_norm(as_tensors([np.float32([3e38, 3e38])])))
    assert norm == np.finfo("float32").max
    assert float(keras_clip.global_norm(as_tensors([np.float32([3e38, np.inf])]))) == math.inf


@pytest.mark.parametrize("max_norm", [0.0, 1e-20, 0.5, 1e38])
def test_gradients_whose_norm_float32_cannot_hold_are_clipped(max_norm):
    gradients = [np.full(5, 3e38, "float32"), np.float32([[-1e38, 0.0]]), np.float32([1e37])]
    clipped, _ = clip(gradients, max_norm)
    assert_close(clipped, reference.clip_by_global_norm(gradients, max_norm))


def test_threshold_may_be_a_variable():
    gradients = as_tensors([np.float32([3.0, 4.0])])
    clipped, _ = keras_clip.clip_by_global_norm(gradients, keras.Variable(0.5))
    np.testing.assert_allclose(numpy_of(clipped)[0], [0.3, 0.4], rtol=1e-6)


def test_a_schedule_is_no_threshold_of_the_function():
    decay = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    with pytest.raises(TypeError, match="must be a number that is at least 0, or a tensor. Rec"):
        keras_clip.clip_by_global_norm([], decay)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="ranks are known elsewhere")
def test_unknown_rank():
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(None)])
    def clip_any(gradient):
        return keras_clip.clip_by_global_norm([gradient], 1.0)

    for value in ([3.0, 4.0], 5.0, [[0.0, 5.0]], []):
        clipped, norm = clip_any(tf.constant(value))
        assert float(norm) == (5.0 if value != [] else 0.0)
        assert clipped[0].shape == np.shape(value)


def test_inputs_are_left_alone():
    gradients = as_tensors([np.float32([30.0, 40.0])])
    keras_clip.clip_by_global_norm(gradients, 1.0)
    np.testing.assert_array_equal(numpy_of(gradients)[0], [30.0, 40.0])


finite_arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
    elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(finite_arrays | st.none(), max_size=4), st.floats(1e-3, 1e3))
def test_law_2_and_3_on_any_gradients(gradients, max_norm):
    """The norm is min(norm, max_norm) afterwards and the direction is the same."""
    clipped, norm = clip(gradients, max_norm)
    true_norm = reference.global_norm(gradients)
    assert norm == pytest.approx(true_norm, rel=1e-6, abs=1e-37)
    present = [g for g in clipped if g is not None]
    assert reference.global_norm(present) == pytest.approx(
        min(true_norm, max_norm), rel=1e-6, abs=1e-37
    )
    expected = reference.clip_by_global_norm(gradients, max_norm)
    scale = max((np.abs(e).max(initial=0) for e in expected if e is not None), default=0)
    for one, other in zip(clipped, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6 * scale)
            assert one.shape == other.shape


@pytest.mark.parametrize("gradients", [np.ones(3), keras.ops.ones((2, 2)), {"a": 1.0}, "abc", 3.0])
def test_a_single_tensor_is_refused(gradients):
    with pytest.raises(TypeError, match=f"list or tuple.*Received a {type(gradients).__name__}"):
        keras_clip.global_norm(gradients)


@pytest.mark.parametrize("max_norm", [-1.0, math.nan])
def test_bad_threshold_value(max_norm):
    with pytest.raises(
        ValueError, match=f"max_norm must be a number.*Received: max_norm={max_norm}"
    ):
        keras_clip.clip_by_global_norm([], max_norm)


@pytest.mark.parametrize("max_norm", ["1.0", None, True, [1.0]])
def test_threshold_that_is_no_number(max_norm):
    with pytest.raises(TypeError, match="max_norm must be a number.*Received: max_norm="):
        keras_clip.clip_by_global_norm([], max_norm)


def test_subnormal_entries_pass_bit_for_bit_where_nothing_is_clipped():
    gradients = [keras.ops.convert_to_tensor(np.array([1e-40, 0.5], "float32")) for _ in range(2)]
    clipped, _ = keras_clip.clip_by_global_norm(gradients, max_norm=10.0)
    for gradient in clipped:
        np.testing.assert_array_equal(
            np.array(keras.ops.convert_to_numpy(gradient)).view("uint32"),
            np.array([1e-40, 0.5], "float32").view("uint32"),
        )


def test_norms_of_mixed_dtypes():
    """One by one, as ClipByNorm takes them."""
    arrays = [np.full(3, 2.0, "float32"), np.full(4, 3.0, "float64"), np.ones(2, "float16")]
    found = norms_of_tensors([backend.as_gradient(array) for array in arrays])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), [np.sqrt(12.0), 6.0, np.sqrt(2.0)], rtol=1e-6
    )


def test_norm_beside_an_empty_float64():
    arrays = [np.full(4, 2.0, "float32"), np.zeros((0, 2), "float64")]
    norm = keras_clip.global_norm([backend.as_gradient(array) for array in arrays])
    assert float(norm) == 4.0
