"""Units and fan-in of the variables of every kind of layer."""

import gc

import keras
import numpy as np
import pytest

from keras_clip import AdaptiveGradientClipping, ClippedOptimizer, WeightClipping
from keras_clip._seam.owners import owners_of
from keras_clip.layers.layouts import Layout, layouts_of
from tests.reference import unitwise as reference
from tests.support.gradient_stream import apply_all, values

# What a layer is does not depend on the backend, only on Keras.
pytestmark = pytest.mark.any_backend

L = keras.layers

# For each layer: how it is made, the shape of its input, and by the name of each variable
# its shape, the axes of a unit and the fan-in, written down by hand.
KINDS = {
    "dense": (
        lambda: L.Dense(5, name="conv2d"),
        (None, 4),
        {"kernel": ((4, 5), (0,), 4), "bias": ((5,), (0,), 4)},
    ),
    "dense of one input": (
        lambda: L.Dense(5),
        (None, 1),
        {"kernel": ((1, 5), (0,), 1), "bias": ((5,), (0,), 1)},
    ),
    "einsum of heads": (
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
        (None, 6, 4),
        {"kernel": ((4, 2, 3), (0,), 4), "bias": ((2, 3), (0, 1), 4)},
    ),
    "einsum from heads": (
        lambda: L.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e"),
        (None, 6, 2, 3),
        {"kernel": ((2, 3, 5), (0, 1), 6), "bias": ((5,), (0,), 6)},
    ),
    "einsum with ellipsis": (
        lambda: L.EinsumDense("...x,xy->...y", 5),
        (None, 4),
        {"kernel": ((4, 5), (0,), 4)},
    ),
    "einsum with a batch of kernels": (
        lambda: L.EinsumDense("abc,bcd->abd", (2, 5)),
        (None, 2, 3),
        {"kernel": ((2, 3, 5), (1,), 3)},
    ),
    "embedding": (lambda: L.Embedding(7, 3), (None, 4), {"embeddings": ((7, 3), (1,), 1)}),
    "conv1d": (
        lambda: L.Conv1D(5, 3),
        (None, 8, 2),
        {"kernel": ((3, 2, 5), (0, 1), 6), "bias": ((5,), (0,), 6)},
    ),
    "conv2d in groups": (
        lambda: L.Conv2D(4, (3, 2), groups=2),
        (None, 8, 8, 6),
        {"kernel": ((3, 2, 3, 4), (0, 1, 2), 18), "bias": ((4,), (0,), 18)},
    ),
    "conv3d": (
        lambda: L.Conv3D(4, 2),
        (None, 4, 4, 4, 3),
        {"kernel": ((2, 2, 2, 3, 4), (0, 1, 2, 3), 24), "bias": ((4,), (0,), 24)},
    ),
    "conv1d transposed": (
        lambda: L.Conv1DTranspose(5, 3),
        (None, 8, 2),
        {"kernel": ((3, 5, 2), (0, 2), 6), "bias": ((5,), (0,), 6)},
    ),
    "conv2d transposed": (
        lambda: L.Conv2DTranspose(5, 3, name="conv2d"),
        (None, 8, 8, 2),
        {"kernel": ((3, 3, 5, 2), (0, 1, 3), 18), "bias": ((5,), (0,), 18)},
    ),
    "conv3d transposed": (
        lambda: L.Conv3DTranspose(5, 2),
        (None, 4, 4, 4, 3),
        {"kernel": ((2, 2, 2, 5, 3), (0, 1, 2, 4), 24), "bias": ((5,), (0,), 24)},
    ),
    "depthwise1d": (
        lambda: L.DepthwiseConv1D(3, depth_multiplier=2),
        (None, 8, 4),
        {"kernel": ((3, 4, 2), (0,), 3), "bias": ((8,), (0,), 3)},
    ),
    "depthwise2d": (
        lambda: L.DepthwiseConv2D(3),
        (None, 8, 8, 4),
        {"kernel": ((3, 3, 4, 1), (0, 1), 9), "bias": ((4,), (0,), 9)},
    ),
    "separable1d": (
        lambda: L.SeparableConv1D(5, 3),
        (None, 8, 4),
        {
            "depthwise_kernel": ((3, 4, 1), (0,), 3),
            "pointwise_kernel": ((1, 4, 5), (0, 1), 4),
            "bias": ((5,), (0,), 4),
        },
    ),
    "separable2d": (
        lambda: L.SeparableConv2D(5, 3, depth_multiplier=2),
        (None, 8, 8, 4),
        {
            "depthwise_kernel": ((3, 3, 4, 2), (0, 1), 9),
            "pointwise_kernel": ((1, 1, 8, 5), (0, 1, 2), 8),
            "bias": ((5,), (0,), 8),
        },
    ),
    "simple rnn": (
        lambda: L.SimpleRNN(3),
        (None, 5, 2),
        {
            "kernel": ((2, 3), (0,), 2),
            "recurrent_kernel": ((3, 3), (0,), 3),
            "bias": ((3,), (0,), 2),
        },
    ),
    "lstm": (
        lambda: L.LSTM(3),
        (None, 5, 2),
        {
            "kernel": ((2, 12), (0,), 2),
            "recurrent_kernel": ((3, 12), (0,), 3),
            "bias": ((12,), (0,), 2),
        },
    ),
    "gru": (
        lambda: L.GRU(3),
        (None, 5, 2),
        {
            "kernel": ((2, 9), (0,), 2),
            "recurrent_kernel": ((3, 9), (0,), 3),
            "bias": ((2, 9), (0, 1), 2),
        },
    ),
    "conv lstm": (
        lambda: L.ConvLSTM2D(2, 3),
        (None, 2, 5, 5, 3),
        {
            "kernel": ((3, 3, 3, 8), (0, 1, 2), 27),
            "recurrent_kernel": ((3, 3, 2, 8), (0, 1, 2), 18),
            "bias": ((8,), (0,), 27),
        },
    ),
    "layer normalization of two axes": (
        lambda: L.LayerNormalization(axis=(1, 2)),
        (None, 3, 4),
        {"gamma": ((3, 4), (0, 1), 1), "beta": ((3, 4), (0, 1), 1)},
    ),
    "batch normalization": (
        lambda: L.BatchNormalization(),
        (None, 3),
        {"gamma": ((3,), (0,), 1), "beta": ((3,), (0,), 1)},
    ),
    "group normalization": (
        lambda: L.GroupNormalization(2),
        (None, 4, 4),
        {"gamma": ((4,), (0,), 1), "beta": ((4,), (0,), 1)},
    ),
    "prelu": (lambda: L.PReLU(), (None, 3, 4), {"alpha": ((3, 4), (0, 1), 1)}),
    "spectral normalization": (
        lambda: L.SpectralNormalization(L.Conv2DTranspose(5, 3)),
        (None, 8, 8, 2),
        {"kernel": ((3, 3, 5, 2), (0, 1, 3), 18), "bias": ((5,), (0,), 18)},
    ),
    "time distributed": (
        lambda: L.TimeDistributed(L.Conv1D(5, 3)),
        (None, 4, 8, 2),
        {"kernel": ((3, 2, 5), (0, 1), 6), "bias": ((5,), (0,), 6)},
    ),
}

every_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind):
    make, shape, expected = KINDS[kind]
    layer = make()
    layer.build(shape)
    return layer, expected


def found(variables):
    return {
        v.name: (tuple(v.shape), layout.unit_axes, layout.fan_in)
        for v, layout in zip(variables, layouts_of(variables), strict=True)
    }


@every_kind
def test_units_and_fan_in(kind):
    layer, expected = built(kind)
    assert found(layer.trainable_variables) == expected


@every_kind
def test_clips_what_the_units_say(kind):
    layer, expected = built(kind)
    variables = layer.trainable_variables
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    before = values(variables)
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(1.0), clipper=AdaptiveGradientClipping(0.1, eps=0.01)
    )
    apply_all(optimizer, variables, [gradients])
    for v, was, gradient in zip(variables, before, gradients, strict=True):
        step = was - reference.clip_units(gradient, was, expected[v.name][1], 0.1, 0.01)
        np.testing.assert_allclose(v.numpy(), step, rtol=1e-5, atol=1e-7)


@every_kind
def test_bounds_weights_by_fan_in(kind):
    layer, expected = built(kind)
    variables = layer.trainable_variables
    for variable in variables:
        variable.assign(np.full(variable.shape, 99.0))
    bound = WeightClipping(2.0, scale_by_fan_in=True)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.0), max_weight=bound)
    apply_all(optimizer, variables, [[np.zeros(v.shape, "float32") for v in variables]])
    for v in variables:
        np.testing.assert_allclose(v.numpy(), 2.0 / np.sqrt(expected[v.name][2]), rtol=1e-6)


def axes_by_path(model):
    clipper = AdaptiveGradientClipping()
    ClippedOptimizer("sgd", clipper=clipper).build(model.trainable_variables)
    return clipper.unit_axes


def attention_model():
    inputs = keras.Input((6, 8))
    attended = L.MultiHeadAttention(2, 4, name="dense")(inputs, inputs)
    recurrent = L.Bidirectional(L.LSTM(3, name="lstm"), name="embedding")(attended)
    outputs = L.Dense(1, name="conv2d_transpose")(recurrent)
    return keras.Model(inputs, outputs)


ATTENTION = {
    **{f"dense/{part}/kernel": (0,) for part in ("query", "key", "value")},
    **{f"dense/{part}/bias": (0, 1) for part in ("query", "key", "value")},
    "dense/attention_output/kernel": (0, 1),
    "dense/attention_output/bias": (0,),
    **{
        f"embedding/{way}_lstm/lstm_cell/{name}": (0,)
        for way in ("forward", "backward")
        for name in ("kernel", "recurrent_kernel", "bias")
    },
    "conv2d_transpose/kernel": (0,),
    "conv2d_transpose/bias": (0,),
}


def test_renamed_layers_in_a_model():
    assert axes_by_path(attention_model()) == ATTENTION


def test_after_save_and_load(tmp_path):
    model = attention_model()
    model.save(tmp_path / "model.keras")
    before = list(axes_by_path(model).values())
    del model
    gc.collect()
    # Keras itself gives the variables of Bidirectional other paths when it loads.
    assert list(axes_by_path(keras.models.load_model(tmp_path / "model.keras")).values()) == before


def test_subclasses_go_by_their_parent():
    class Scaled(L.Conv1D):
        def build(self, input_shape):
            super().build(input_shape)
            self.extra = self.add_weight(shape=(2, 3, 4), name="extra")

    layer = Scaled(5, 3)
    layer.build((None, 8, 2))
    assert found(layer.trainable_variables) == {
        "kernel": ((3, 2, 5), (0, 1), 6),
        "bias": ((5,), (0,), 6),
        "extra": ((2, 3, 4), (0,), 6),
    }


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (
            lambda: L.Dense(5, lora_rank=2),
            (None, 4),
            {"lora_kernel_a": ((4, 2), (0,), 4), "lora_kernel_b": ((2, 5), (0,), 2)},
        ),
        (
            lambda: L.Embedding(7, 3, lora_rank=2),
            (None, 4),
            {"lora_embeddings_a": ((7, 2), (1,), 1), "lora_embeddings_b": ((2, 3), (0,), 2)},
        ),
        (
            lambda: L.Conv1D(5, 3, lora_rank=2),
            (None, 8, 4),
            {"lora_kernel_a": ((3, 4, 2), (0, 1), 12), "lora_kernel_b": ((2, 5), (0,), 2)},
        ),
    ],
)
def test_low_rank_adapters(make, shape, expected):
    layer = make()
    layer.build(shape)
    layouts = found(layer.trainable_variables)
    layouts.pop("bias", None)
    assert layouts == expected


@pytest.mark.skipif(not hasattr(L, "ReversibleEmbedding"), reason="a newer Keras has it")
def test_reversed_embeddings():
    layer = L.ReversibleEmbedding(7, 3, tie_weights=False)
    layer.build((None, 4))
    assert found(layer.trainable_variables) == {
        "embeddings": ((7, 3), (1,), 1),
        "reverse_embeddings": ((3, 7), (0,), 3),
    }


@pytest.mark.parametrize(
    ("shape", "axes", "fan_in"),
    [
        ((), (), 1),
        ((4,), (0,), 1),
        ((1, 4), (0, 1), 1),
        ((4, 1), (0, 1), 4),
        ((4, 3), (0,), 4),
        ((2, 3, 4), (0,), 6),
        ((2, 2, 3, 4), (0, 1, 2), 12),
        ((2, 2, 2, 3, 4), (0, 1, 2, 3), 24),
        ((2, 1, 2, 1, 3, 4), (0, 1, 2, 3, 4), 12),
    ],
)
def test_variables_of_no_layer(shape, axes, fan_in):
    variable = keras.Variable(np.zeros(shape), name="kernel")
    assert owners_of([variable]) == {id(variable): []}
    assert layouts_of([variable]) == [Layout(axes, fan_in)]


def test_variables_of_a_layer_that_is_not_of_keras():
    class Own(L.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(2, 3, 4), name="kernel")

    layer = Own()
    layer.build((None, 2))
    assert found(layer.trainable_variables) == {"kernel": ((2, 3, 4), (0,), 6)}


class Hostile:
    """Raises whatever is asked of it, as proxies and lazy modules may."""

    def __getattribute__(self, name):
        raise RuntimeError(f"asked for {name}")


class HostileMeta(type):
    """Its classes are not hashable, and do not list their subclasses."""

    __hash__ = None

    def __eq__(cls, other):
        raise RuntimeError("compared")


class OfHostileMeta(metaclass=HostileMeta):
    """Of no use."""


def test_objects_that_raise_are_no_obstacle():
    obstacles = [Hostile(), OfHostileMeta(), L.Layer.__new__(L.Dense)]
    layer, expected = built("conv2d transposed")
    assert found(layer.trainable_variables) == expected
    assert len(obstacles) == 3


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="only TensorFlow has slices")
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), ()])
@pytest.mark.parametrize("compiled", [False, True])
def test_repeated_rows_of_an_embedding(axes, compiled):
    import tensorflow as tf

    layer = L.Embedding(5, 2)
    layer.build()
    table = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    layer.embeddings.assign(table)
    # The summed row 2 is above its limit, no single one is; row 4 stays below.
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
