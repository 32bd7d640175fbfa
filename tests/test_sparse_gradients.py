"""`tf.IndexedSlices`: the norm of the true gradient, and slices that stay slices."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.seeds import fix_seeds

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="only TensorFlow has sparse gradients"
)


@pytest.fixture
def tf():
    import tensorflow

    return tensorflow


def slices(tf, values, indices, rows=5):
    return tf.IndexedSlices(
        tf.constant(values),
        tf.constant(indices, tf.int64),
        tf.constant([rows, len(values[0])], tf.int64),
    )


def dense(tf, gradient):
    return tf.convert_to_tensor(gradient).numpy()


CASES = {
    "repeated": ([[3.0, 0.0], [1.0, 2.0], [4.0, 0.0]], [2, 0, 2]),
    "unsorted": ([[3.0, 0.0], [1.0, 2.0], [4.0, 0.0]], [4, 0, 2]),
    "cancelling": ([[3.0, 1.0], [-3.0, -1.0]], [1, 1]),
    "all the same": ([[1.0, 1.0]] * 6, [3] * 6),
    "single": ([[3.0, 4.0]], [0]),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize("case", CASES)
def test_repeated_rows_are_summed_for_the_norm(tf, case, compiled):
    values, indices = CASES[case]
    sparse, other = slices(tf, values, indices), tf.constant([2.0])
    true = [dense(tf, sparse), other.numpy()]

    def clip():
        return keras_clip.clip_by_global_norm([sparse, other], 1.0)

    clipped, norm = (tf.function(clip, jit_compile=True) if compiled else clip)()
    assert float(norm) == pytest.approx(reference.global_norm(true), rel=1e-6)
    assert isinstance(clipped[0], tf.IndexedSlices)
    np.testing.assert_array_equal(clipped[0].indices, indices)
    expected = reference.clip_by_global_norm(true, 1.0)
    np.testing.assert_allclose(dense(tf, clipped[0]), expected[0], rtol=1e-6, atol=1e-7)


def test_no_rows_at_all(tf):
    empty = tf.IndexedSlices(
        tf.zeros((0, 2)), tf.zeros((0,), tf.int64), tf.constant([5, 2], tf.int64)
    )

    @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int64)])
    def norm_of_rows(values, indices):
        return keras_clip.global_norm([tf.IndexedSlices(values, indices)])

    assert float(keras_clip.global_norm([empty])) == 0.0
    assert float(norm_of_rows(empty.values, empty.indices)) == 0.0


@pytest.mark.parametrize("magnitude", [1e-25, 1e25])
def test_rows_of_any_magnitude(tf, magnitude):
    sparse = slices(tf, [[magnitude], [magnitude]], [1, 1])
    assert float(keras_clip.global_norm([sparse])) == pytest.approx(2 * magnitude, rel=1e-6)


def test_half_precision_rows(tf):
    sparse = tf.IndexedSlices(tf.constant([[40000.0], [40000.0]], tf.float16), tf.constant([1, 1]))
    clipped, norm = keras_clip.clip_by_global_norm([sparse], 8.0)
    assert float(norm) == 80000.0
    assert clipped[0].dtype == tf.float16
    np.testing.assert_allclose(clipped[0].values, [[4.0], [4.0]])


def embedding_model(optimizer):
    fix_seeds(1)
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(9, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, loss="mse")
    return model


TOKENS = np.array([[1, 1, 1, 2, 2, 0], [3, 3, 1, 1, 8, 8]])
TARGETS = np.array([[40.0], [-30.0]])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_idle_clipping_changes_nothing_in_an_embedding(name):
    weights = []
    for optimizer in (name, ClippedOptimizer(name, 1e30)):
        model = embedding_model(optimizer)
        model.fit(TOKENS, TARGETS, epochs=3, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_applied_step_of_an_embedding_has_the_norm_asked_for():
    model = embedding_model(ClippedOptimizer(keras.optimizers.SGD(1.0), max_norm=0.1))
    before = model.get_weights()
    model.fit(TOKENS, TARGETS, verbose=0)
    step = [after - was for after, was in zip(model.get_weights(), before, strict=True)]
    assert reference.global_norm(step) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="IndexedSlices")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("max_norm", [0.1, 1e30])
def test_rows_that_are_summed_give_adam_the_step_of_a_dense_gradient(max_norm, graph):
    import tensorflow as tf

    indices, values = [2, 0, 2, 2], np.float32([[1, 2], [3, 4], [5, 6], [-1, 1]])
    dense = np.zeros((4, 2), "float32")
    np.add.at(dense, indices, values)

    def stepped(gradient, **options):
        variable = keras.Variable(np.ones((4, 2), "float32"))
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.1), max_norm, **options)
        optimizer.build([variable])

        def step():
            optimizer.apply([gradient], [variable])

        for _ in range(3):
            (tf.function(step) if graph else step)()
        return variable.numpy()

    slices = tf.IndexedSlices(tf.constant(values), tf.constant(indices), tf.constant([4, 2]))
    expected = stepped(tf.constant(dense))
    np.testing.assert_allclose(stepped(slices, sum_repeated_rows=True), expected, rtol=1e-6)
    assert not np.allclose(stepped(slices), expected, rtol=1e-3)


def test_summing_rows_is_in_the_config():
    made = ClippedOptimizer("adam", sum_repeated_rows=True)
    assert ClippedOptimizer.from_config(made.get_config()).get_config()["sum_repeated_rows"]
    with pytest.raises(TypeError, match="sum_repeated_rows must be True or False"):
        ClippedOptimizer("adam", sum_repeated_rows=1)
