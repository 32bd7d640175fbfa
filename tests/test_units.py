"""Units and fan-in of the variables of every kind of layer."""

import gc
import json
import weakref
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np
import pytest

from keras_clip import AdaptiveGradientClipping, ClippedOptimizer, WeightClipping
from keras_clip.layers.given_layers import GivenLayers
from keras_clip.layers.units import UNKNOWN, Units
from tests.reference import unitwise as reference
from tests.support.gradient_stream import apply_all, assert_identical, values

# Layers depend on Keras only, not on the backend.
pytestmark = pytest.mark.any_backend

L = keras.layers

# For each layer: how it is made, the shape of its input, and by the name of each variable
# its shape, the axes of a unit and the fan-in, written down by hand.
KINDS = {
    "dense": (
        lambda: L.Dense(5),
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
        lambda: L.Conv2DTranspose(5, 3),
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


def found(variables, layers=None):
    units = GivenLayers(layers).units_of(variables)
    return {v.name: (tuple(v.shape), *of_v) for v, of_v in zip(variables, units, strict=True)}


@every_kind
def test_layers_tell_units_and_fan_in(kind):
    layer, expected = built(kind)
    assert found(layer.trainable_variables, layer) == expected


# An equation or a user's own name decides, and neither is in the path that Keras gives.
NOT_TOLD_BY_NAMES = {
    "einsum of heads": {"kernel": UNKNOWN, "bias": ((0, 1), None)},
    "einsum from heads": {"kernel": UNKNOWN, "bias": ((0,), None)},
    "einsum with ellipsis": {"kernel": UNKNOWN},
    "einsum with a batch of kernels": {"kernel": UNKNOWN},
}


@every_kind
def test_names_that_keras_gives_tell_them_too(kind):
    layer, expected = built(kind)
    unknown = NOT_TOLD_BY_NAMES.get(kind, {})
    assert found(layer.trainable_variables) == {
        name: (told[0], *unknown.get(name, told[1:])) for name, told in expected.items()
    }


@every_kind
def test_clips_what_the_units_say(kind):
    layer, expected = built(kind)
    variables = layer.trainable_variables
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    before = values(variables)
    clipper = AdaptiveGradientClipping(0.1, eps=0.01, layers=layer)
    apply_all(ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper), variables, [gradients])
    for v, was, gradient in zip(variables, before, gradients, strict=True):
        step = was - reference.clip_units(gradient, was, expected[v.name][1], 0.1, 0.01)
        np.testing.assert_allclose(v.numpy(), step, rtol=1e-5, atol=1e-7)


@every_kind
def test_bounds_weights_by_fan_in(kind):
    layer, expected = built(kind)
    variables = layer.trainable_variables
    for variable in variables:
        variable.assign(np.full(variable.shape, 99.0))
    bound = WeightClipping(2.0, scale_by_fan_in=True, layers=layer)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.0), max_weight=bound)
    apply_all(optimizer, variables, [[np.zeros(v.shape, "float32") for v in variables]])
    for v in variables:
        np.testing.assert_allclose(v.numpy(), 2.0 / np.sqrt(expected[v.name][2]), rtol=1e-6)


def axes_by_path(model, **arguments):
    clipper = AdaptiveGradientClipping(**arguments)
    ClippedOptimizer("sgd", clipper=clipper).build(model.trainable_variables)
    return clipper.unit_axes


def misleading_model():
    """A model with exchanged layer names, models in models, wrappers and a shared layer."""
    inputs = keras.Input((6, 8))
    attended = L.MultiHeadAttention(2, 4, name="dense")(inputs, inputs)
    recurrent = L.Bidirectional(L.LSTM(2, name="lstm", return_sequences=True), name="embedding")
    inner = keras.Sequential(
        [keras.Input((6, 4)), L.Conv1DTranspose(4, 3, padding="same", name="conv1d")], name="gru"
    )
    shared = L.DepthwiseConv1D(3, name="conv1d_transpose")
    hidden = shared(shared(inner(recurrent(attended))))
    outputs = L.TimeDistributed(L.Dense(1, name="einsum_dense"), name="conv2d")(hidden)
    return keras.Model(inputs, outputs)


MISLEADING = {
    **{f"dense/{part}/kernel": (0,) for part in ("query", "key", "value")},
    **{f"dense/{part}/bias": (0, 1) for part in ("query", "key", "value")},
    "dense/attention_output/kernel": (0, 1),
    "dense/attention_output/bias": (0,),
    **{
        f"embedding/{way}_lstm/lstm_cell/{name}": (0,)
        for way in ("forward", "backward")
        for name in ("kernel", "recurrent_kernel", "bias")
    },
    "gru/conv1d/kernel": (0, 2),
    "gru/conv1d/bias": (0,),
    "conv1d_transpose/kernel": (0,),
    "conv1d_transpose/bias": (0,),
    "conv2d/einsum_dense/kernel": (0,),
    "conv2d/einsum_dense/bias": (0,),
}


def by_end_of_path(axes):
    """Paths within models differ from one Keras to the next."""
    return {"/".join(path.split("/")[-2:]): of_path for path, of_path in axes.items()}


def test_layers_go_before_names():
    model = misleading_model()
    found = axes_by_path(model, layers=model)
    assert len(found) == len(MISLEADING)
    assert by_end_of_path(found) == by_end_of_path(MISLEADING)
    assert axes_by_path(model, layers=model.layers) == found


def test_attention_is_known_by_its_name():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, L.MultiHeadAttention(2, 4)(inputs, inputs))
    expected = [(0,), (0, 1)] * 3 + [(0, 1), (0,)]
    assert list(axes_by_path(model).values()) == expected
    queries = L.GroupQueryAttention(4, 2, 1)
    queries.build((None, 6, 8), (None, 6, 8))
    assert list(axes_by_path(queries).values()) == expected


@pytest.mark.parametrize("freezes", [False, True])
def test_the_garbage_collector_decides_nothing(freezes):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Embedding(10, 3, name="table"),
            L.Conv1DTranspose(5, 2, name="up"),
            L.Conv1DTranspose(5, 2),
        ]
    )
    if freezes:
        gc.freeze()
    try:
        axes = axes_by_path(model, layers=model.get_layer("up"))
    finally:
        gc.unfreeze()
    assert list(axes.values()) == [(1,), (0, 2), (0,), (0, 2), (0,)]


@contextmanager
def warned_once():
    caught = []
    with pytest.warns(UserWarning) as everything:
        yield caught
    # NumPy itself also warns.
    caught += [warning for warning in everything if warning.category is UserWarning]
    assert len(caught) == 1


def residual_network():
    """A model as in keras.applications: its author named the layers, some without biases."""
    inputs = keras.Input((8, 8, 3))
    hidden = L.Conv2D(4, 3, use_bias=False, name="conv1_conv")(inputs)
    hidden = L.BatchNormalization(name="conv1_bn")(hidden)
    hidden = L.DepthwiseConv2D(3, name="block_depthwise")(hidden)
    outputs = L.Dense(2, name="predictions")(L.GlobalAveragePooling2D()(hidden))
    return keras.Model(inputs, outputs)


def test_named_layers_are_warned_of_once_or_known():
    model = residual_network()
    with warned_once() as caught:
        axes = axes_by_path(model)
    message = str(caught[0].message)
    assert "does not know the units of 2 variables" in message
    assert "'conv1_conv/kernel': (0, 1, 2), 'block_depthwise/kernel': (0, 1, 2)}" in message
    assert "Pass AdaptiveGradientClipping(layers=model)" in message
    assert axes["block_depthwise/kernel"] == (0, 1, 2)
    assert axes_by_path(model, layers=model)["block_depthwise/kernel"] == (0, 1)
    # If each is named or excluded, nothing is guessed and no warning is raised.
    named = {"axes": {"block_depthwise/kernel": (0, 1)}, "exclude": "conv1_conv/kernel"}
    assert axes_by_path(model, **named)["block_depthwise/kernel"] == (0, 1)


def bounded(model, bound):
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.0), max_weight=bound)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.full(variable.shape, 99.0))
    apply_all(optimizer, variables, [[np.zeros(v.shape, "float32") for v in variables]])
    return {v.path: round(float(v.numpy().max()) ** -2) for v in variables}


def test_fan_in_of_named_layers_is_warned_of_once_or_known():
    model = residual_network()
    with warned_once() as caught:
        fan_ins = bounded(model, WeightClipping(1.0, scale_by_fan_in=True))
    message = str(caught[0].message)
    guessed = "{'conv1_conv/kernel': 27, 'block_depthwise/kernel': 36, 'block_depthwise/bias': 1}"
    assert "does not know the fan-in of 3 variables" in message
    assert f"the product of all axes but the last: {guessed}" in message
    assert "scale_by_fan_in=True, layers=model" in message
    known = bounded(model, WeightClipping(1.0, scale_by_fan_in=True, layers=model))
    expected = {
        "conv1_conv/kernel": 27,
        "conv1_bn/gamma": 1,
        "conv1_bn/beta": 1,
        "block_depthwise/kernel": 9,
        "block_depthwise/bias": 9,
        "predictions/kernel": 4,
        "predictions/bias": 4,
    }
    assert known == expected
    assert {path for path, fan_in in fan_ins.items() if fan_in != expected[path]} == {
        "block_depthwise/kernel",
        "block_depthwise/bias",
    }
    # A bound without fan-in is never a guess.
    bounded(model, {".*kernel": 1.0, ".*bias": WeightClipping(1.0, scale_by_fan_in=False)})


def test_the_bias_of_a_group_has_the_fan_in_of_a_kernel_in_another():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3)])
    groups = {".*bias": WeightClipping(1.0, scale_by_fan_in=True), "default": 0.5}
    assert list(bounded(model, groups).values()) == [4, 27]


def test_layers_of_one_path():
    """Nothing distinguishes their biases; shapes distinguish the kernels."""
    layers = [L.Dense(5, name="twin"), L.Dense(5, name="twin")]
    for inputs, layer in zip((3, 4), layers, strict=True):
        layer.build((None, inputs))
    variables = [v for layer in layers for v in layer.trainable_variables]
    by_name, by_layer = GivenLayers(None), GivenLayers(layers)
    assert by_name.units_of(variables) == [((0,), 3), ((0,), None), ((0,), 4), ((0,), None)]
    assert by_layer.units_of(variables) == [((0,), 3), ((0,), 3), ((0,), 4), ((0,), 4)]


def test_subclasses_go_by_their_parent():
    class Scaled(L.Conv1D):
        def build(self, input_shape):
            super().build(input_shape)
            self.extra = self.add_weight(shape=(2, 3, 4), name="extra")

    layer = Scaled(5, 3)
    layer.build((None, 8, 2))
    assert found(layer.trainable_variables, layer) == {
        "kernel": ((3, 2, 5), (0, 1), 6),
        "bias": ((5,), (0,), 6),
        "extra": ((2, 3, 4), *UNKNOWN),
    }


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (
            lambda: L.Dense(5, lora_rank=2),
            (None, 4),
            {"lora_kernel_a": ((4, 2), (0,), 4), "lora_kernel_b": ((2, 5), (0,), 2)},
        ),
        (
            lambda: L.EinsumDense("abc,cde->abde", (None, 2, 3), lora_rank=2),
            (None, 6, 4),
            {"lora_kernel_a": ((4, 2, 2), (0, 1), 8), "lora_kernel_b": ((2, 3), (0,), 2)},
        ),
        (
            lambda: L.Embedding(7, 3, lora_rank=2),
            (None, 4),
            {"lora_embeddings_a": ((7, 2), (1,), 1), "lora_embeddings_b": ((2, 3), (0,), 2)},
        ),
        (
            lambda: L.Conv1D(5, 3, lora_rank=2, name="custom"),
            (None, 8, 4),
            {"lora_kernel_a": ((3, 4, 2), (0, 1), 12), "lora_kernel_b": ((2, 5), (0,), 2)},
        ),
    ],
)
def test_low_rank_adapters(make, shape, expected, given):
    layer = make()
    layer.build(shape)
    units = found(layer.trainable_variables, layer if given else None)
    units.pop("bias", None)
    assert units == expected


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_layers(mode):
    layer = L.Dense(5, name="custom")
    layer.build((None, 4))
    layer.quantize(mode)
    units = found(layer.trainable_variables, layer)
    assert units["bias"] == ((5,), (0,), 4)
    if mode == "float8":
        assert units["kernel"] == ((4, 5), (0,), 4)
    assert all(axes == tuple(range(len(shape))) for shape, axes, _ in units.values() if not shape)


@pytest.mark.skipif(not hasattr(L, "ReversibleEmbedding"), reason="a newer Keras has it")
@pytest.mark.parametrize("given", [False, True])
def test_reversed_embeddings(given):
    layer = L.ReversibleEmbedding(7, 3, tie_weights=False)
    layer.build((None, 4))
    assert found(layer.trainable_variables, layer if given else None) == {
        "embeddings": ((7, 3), (1,), 1),
        "reverse_embeddings": ((3, 7), (0,), 3),
    }


@pytest.mark.parametrize(
    ("name", "shape", "axes", "fan_in"),
    [
        ("any", (), (), 1),
        ("any", (4,), (0,), 1),
        ("kernel", (4, 1), (0,), 4),
        ("kernel", (4, 3), (0,), 4),
        ("bias", (4, 3), (0, 1), None),
        ("bias", (4,), (0,), None),
        ("any", (4, 3), None, None),
        ("kernel", (2, 3, 4), None, None),
        ("gamma", (2, 3), None, None),
    ],
)
def test_variables_of_no_layer(name, shape, axes, fan_in):
    variables = [keras.Variable(np.zeros(shape), name=name), keras.Variable(np.zeros((9, 9)))]
    assert GivenLayers(None).units_of(variables)[0] == Units(axes, fan_in)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 4), (0, 1)),
        ((4, 1), (0, 1)),
        ((4, 3), (0,)),
        ((2, 3, 4), (0,)),
        ((2, 2, 3, 4), (0, 1, 2)),
        ((2, 2, 2, 3, 4), (0, 1, 2, 3)),
        ((2, 1, 2, 1, 3, 4), (0, 1, 2, 3, 4)),
    ],
)
def test_the_rule_of_optax(shape, axes):
    variable = keras.Variable(np.zeros(shape), name="any")
    clipper = AdaptiveGradientClipping()
    with pytest.warns(UserWarning, match="takes the axes that optax takes for their shapes"):
        clipper.build_for([variable])
    assert clipper.unit_axes == {variable.path: axes}


def test_a_users_own_class_of_a_name_of_keras():
    class Conv1D(L.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(2, 3, 4), name="kernel")
            self.bias = self.add_weight(shape=(4,), name="bias")

    layer = Conv1D()
    layer.build((None, 2))
    assert found(layer.trainable_variables, layer) == {
        "kernel": ((2, 3, 4), *UNKNOWN),
        "bias": ((4,), (0,), None),
    }


def test_a_layer_with_a_variable_of_another():
    class Tied(L.Layer):
        def __init__(self, owner):
            super().__init__()
            self.weights_of_another = owner.kernel

    owner = L.Conv1DTranspose(5, 3, use_bias=False, name="up")
    owner.build((None, 8, 2))
    tied = Tied(owner)
    assert len(tied.variables) == 1
    for layers in ([tied, owner], [owner, tied]):
        assert found([owner.kernel], layers) == {"kernel": ((3, 5, 2), (0, 2), 6)}


def test_an_automatic_name_that_does_not_fit_the_rank_says_nothing():
    layer = L.Conv1DTranspose(5, 3, use_bias=False, name="conv2d_1")
    layer.build((None, 8, 2))
    assert found(layer.trainable_variables) == {"kernel": ((3, 5, 2), *UNKNOWN)}


def test_variables_without_a_path_are_no_layer():
    variables = [
        keras.Variable(np.zeros((4, 3)), name="kernel"),
        keras.Variable([0.0], name="bias"),
    ]
    assert GivenLayers(None).units_of(variables) == [((0,), 4), ((0,), None)]


@pytest.mark.skipif(not hasattr(keras.quantizers, "pack_int4"), reason="a newer Keras has it")
def test_a_packed_kernel_does_not_tell_the_fan_in():
    layer = L.Dense(5)
    layer.build((None, 4))
    layer.quantize("int4")
    assert found(layer.trainable_variables, layer) == {"bias": ((5,), (0,), None)}


@keras.saving.register_keras_serializable("test_units")
class Upsampling(keras.Model):
    """Keras gives its variables other paths when it loads it."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.layers_inside = [
            L.Conv1DTranspose(2, 3, name="up"),
            L.EinsumDense("abc,dc->abd", (None, 2)),
        ]

    def build(self, input_shape):
        for layer in self.layers_inside:
            layer.build((None, 4, 2))
        self.built = True

    def call(self, inputs):
        for layer in self.layers_inside:
            inputs = layer(inputs)
        return inputs


def upsampling():
    model = Upsampling()
    model.build((None, 4, 2))
    return model


def sequential():
    return keras.Sequential(
        [
            keras.Input((4, 2)),
            L.Conv1DTranspose(2, 3, name="up"),
            L.EinsumDense("abc,dc->abd", (None, 2)),
        ]
    )


@pytest.mark.parametrize("make", [upsampling, sequential])
def test_what_layers_said_is_in_the_file(make, tmp_path):
    model = make()
    clipper = AdaptiveGradientClipping(0.1, layers=model)
    bound = WeightClipping(1.0, scale_by_fan_in=True, layers=model)
    optimizer = ClippedOptimizer("sgd", clipper=clipper, max_weight=bound)
    model.compile(optimizer=optimizer, loss="mse")
    shape = model(np.zeros((1, 4, 2))).shape
    data = np.ones((4, 4, 2), "float32"), np.ones((4, *shape[1:]), "float32")
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Keras 3.16 keeps the paths of a Sequential.
    if make is upsampling:
        assert not {v.path for v in loaded.variables} & {v.path for v in model.variables}
    for one in (model, loaded):
        one.fit(*data, verbose=0)
    assert_identical(loaded.get_weights(), model.get_weights())
    again = loaded.optimizer.clipper.unit_axes
    assert list(again.values()) == list(clipper.unit_axes.values()) == [(0, 2), (0,), (1,)]
    config = json.loads(json.dumps(loaded.optimizer.get_config()))
    fan_ins = [record["fan_in"] for record in config["max_weight"]["config"]["layers"]]
    assert fan_ins == [6, 6, 2]
    assert ClippedOptimizer.from_config(config).get_config() == config


def test_records_that_do_not_agree_say_nothing():
    """Two layers whose numbers may have changed are never confused."""
    layers = [L.EinsumDense("ab,bc->ac", 3), L.EinsumDense("ab,cb->ac", 3)]
    for layer in layers:
        layer.build((None, 3))
    variables = [layer.kernel for layer in layers]
    given = GivenLayers(layers)
    assert given.units_of(variables) == [((0,), 3), ((1,), 3)]
    again = GivenLayers(given.get_config())
    assert again.units_of(variables) == [((0,), 3), ((1,), 3)]
    moved = L.EinsumDense("ab,cb->ac", 3)
    moved.build((None, 3))
    again = GivenLayers(given.get_config())
    assert again.units_of([layers[1].kernel, moved.kernel]) == [UNKNOWN, UNKNOWN]


def test_records_come_before_names():
    layer = L.Conv2DTranspose(5, 3, name="conv2d")
    layer.build((None, 8, 8, 5))
    records = GivenLayers(layer).get_config()
    assert GivenLayers(None).units_of([layer.kernel]) == [((0, 1, 2), 45)]
    assert GivenLayers(records).units_of([layer.kernel]) == [((0, 1, 3), 45)]
    # A legacy file is loaded by an optimizer that is built with no variables at first.
    empty = GivenLayers(records)
    assert empty.units_of([]) == []
    assert empty.get_config() == records
    # A variable of another shape is a different variable.
    other = L.Conv2D(5, 3, name="conv2d")
    other.build((None, 8, 8, 2))
    assert GivenLayers(records).units_of([other.kernel]) == [((0, 1, 2), 18)]


def test_layers_are_let_go_once_they_have_answered():
    layer, _ = built("dense")
    clipper = AdaptiveGradientClipping(layers=layer)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    optimizer.build(layer.trainable_variables)
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
    assert len(clipper.get_config()["layers"]) == 2


def test_layers_that_are_not_built_say_nothing():
    assert AdaptiveGradientClipping(layers=L.Dense(3)).get_config()["layers"] is None


@pytest.mark.parametrize("layers", [3, "model", [], [L.Dense(1), 3], [{"path": "a"}], L.Dense])
def test_bad_layers(layers):
    for make in (AdaptiveGradientClipping, partial(WeightClipping, scale_by_fan_in=True)):
        with pytest.raises(TypeError, match="layers must be a model, a layer, or a list of them"):
            make(layers=layers)


def test_bad_use():
    with pytest.raises(ValueError, match="layers tell the fan-in.*scale_by_fan_in=False"):
        WeightClipping(layers=L.Dense(1))
    model = residual_network()
    clipper = AdaptiveGradientClipping(layers=keras.models.clone_model(model))
    with pytest.raises(ValueError, match="layers has none of the variables that are trained"):
        ClippedOptimizer("sgd", clipper=clipper).build(model.trainable_variables)
