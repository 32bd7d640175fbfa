"""Many small gradients are clipped in stacks, with the same results."""

import keras
import numpy as np
import pytest

import keras_clip

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="only TensorFlow takes long for each of many"
)

# One shape, another shape, another type, single ones, and ones too large for a stack.
SHAPES = [((3, 2), "float32")] * 5 + [((), "float32")] * 4 + [((3, 2), "float16")] * 6
SHAPES += [((7,), "float32"), ((60, 70), "float32"), ((0, 3), "float32")]


def arrays():
    generator = np.random.default_rng(5)
    made = [np.asarray(generator.normal(size=shape)).astype(dtype) for shape, dtype in SHAPES]
    generator.shuffle(order := np.arange(len(made)))
    return [made[position] for position in order]


def as_gradients(values):
    import tensorflow as tf

    first = tf.constant(values[0])
    slices = tf.IndexedSlices(first, tf.range(len(values[0])), tf.shape(first))
    return [slices, *(tf.constant(value) for value in values[1:])]


HOW = ["eager", "graph", "xla"]


def clip(gradients, max_norm, how):
    import tensorflow as tf

    function = keras_clip.clip_by_global_norm
    if how != "eager":
        function = tf.function(function, jit_compile=how == "xla")
    clipped, _ = function(gradients, max_norm)
    assert [type(c) for c in clipped] == [type(g) for g in gradients]
    return [tf.convert_to_tensor(gradient).numpy() for gradient in clipped]


@pytest.fixture
def values():
    first, *others = arrays()
    return [np.ones((4, 2), "float32"), first, *others]


def test_few_are_left():
    from keras_clip._seam.tensorflow.stacks import Stacks

    gradients = as_gradients(arrays())
    assert len(gradients) == 18
    # Three stacks, the slices, and three tensors that are unlike all others.
    assert len(Stacks(gradients, may_stack=True).joined(gradients)) == 7
    assert len(Stacks(gradients, may_stack=False).joined(gradients)) == 18


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("scale, max_norm", [(1.0, 0.5), (1e35, 1e-4), (1e-30, 1e-31)])
def test_clips_each_in_its_place(values, scale, max_norm, how):
    # float16 holds neither scale: its value stays or becomes 0.
    values = [v * v.dtype.type(scale if v.dtype == np.float32 else scale >= 1) for v in values]
    wide = [value.astype("float64") for value in values]
    norm = np.sqrt(sum(np.sum(value**2) for value in wide))
    clipped = clip(as_gradients(values), max_norm, how)
    for found, value in zip(clipped, wide, strict=True):
        assert found.shape == value.shape
        tolerance = 2e-3 if found.dtype == np.float16 else 1e-6
        expected = value * min(1.0, max_norm / norm)
        # float16 ends at 6e-8.
        smallest = 1e-7 if found.dtype == np.float16 else 1e-7 * max_norm
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=smallest)


@pytest.mark.parametrize("how", HOW)
def test_passes_every_bit_where_nothing_is_clipped(values, how):
    values[3] = np.full_like(values[3], 1e-41 if values[3].dtype == np.float32 else 1e-7)
    for found, value in zip(clip(as_gradients(values), 1e9, how), values, strict=True):
        assert found.dtype == value.dtype
        assert found.tobytes() == value.tobytes()


def test_shapes_that_are_not_known():
    import tensorflow as tf

    signature = [[tf.TensorSpec([None], tf.float32)] * 6]

    @tf.function(input_signature=signature)
    def clipped(gradients):
        return keras_clip.clip_by_global_norm(gradients, 1.0)[0]

    gradients = [np.full(size, 2.0, "float32") for size in (1, 2, 3, 4, 3, 3)]
    for found, gradient in zip(clipped(gradients), gradients, strict=True):
        np.testing.assert_allclose(found.numpy(), gradient / 8.0, rtol=1e-6)
