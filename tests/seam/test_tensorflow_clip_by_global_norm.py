"""Above the threshold the clip is `tf.clip_by_global_norm` itself, given the norm."""

import keras
import numpy as np
import pytest

import keras_clip

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="the function is TensorFlow's"
)


def gradients_of(dtype):
    import tensorflow as tf

    generator = np.random.default_rng(2)
    slices = tf.IndexedSlices(
        tf.constant(generator.normal(size=(3, 2)).astype(dtype)),
        tf.constant([4, 0, 2]),
        tf.constant([5, 2]),
    )
    shapes = [(7, 5), (3,), (3,), (3,), (3,), ()]
    return [slices, *(tf.constant(generator.normal(size=s).astype(dtype)) for s in shapes)]


def bits(gradient):
    return getattr(gradient, "values", gradient).numpy().tobytes()


@pytest.mark.parametrize("how", ["eager", "graph"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("max_norm", [1e-10, 0.3, 1.7])
def test_the_same_bits(max_norm, dtype, how):
    import tensorflow as tf

    clip = keras_clip.clip_by_global_norm
    if how == "graph":
        clip = tf.function(clip)
    gradients = gradients_of(dtype)
    clipped, norm = clip(gradients, max_norm)
    expected, _ = tf.clip_by_global_norm(gradients, max_norm, use_norm=norm)
    assert float(norm) > max_norm
    assert [type(found) for found in clipped] == [type(gradient) for gradient in gradients]
    assert list(map(bits, clipped)) == list(map(bits, expected))


@pytest.mark.parametrize("dtype, calls", [("float32", 1), ("float64", 1), ("float16", 0)])
def test_is_called_by_name(dtype, calls, monkeypatch):
    import tensorflow as tf

    original, found = tf.clip_by_global_norm, []

    def counted(*arguments, **named):
        found.append(named)
        return original(*arguments, **named)

    monkeypatch.setattr(tf, "clip_by_global_norm", counted)
    tf.function(
        lambda: keras_clip.clip_by_global_norm(gradients_of(dtype), 0.5)
    ).get_concrete_function()
    assert len(found) == calls
    assert all("use_norm" in named for named in found)
