"""Which axes of a variable lead from inputs to one output, by the class of its layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_clip._seam.sublayers import own_variables
from keras_clip.layers.units import UNKNOWN, Axes, Units

Rule = Callable[[int], Axes]
"""The rank of a variable, to the axes of one unit."""


def all_but_last(rank: int) -> Axes:
    """Of most kernels, (..., inputs, outputs)."""
    return tuple(range(rank - 1))


def all_but_first(rank: int) -> Axes:
    """Of a table, whose rows are what one lookup computes with.

    optax takes columns, which mix all tokens: one frequent token would have every other clipped.
    """
    return tuple(range(1, rank))


def all_but_last_but_one(rank: int) -> Axes:
    """Of a transposed convolution, (..., outputs, inputs)."""
    return (*range(rank - 2), rank - 1)


def spatial(rank: int) -> Axes:
    """Of a depthwise convolution, (..., channels, multiplier): each pair is an output."""
    return tuple(range(rank - 2))


def _contracted(equation: str, rank: int) -> Axes:
    """Of `EinsumDense`: the axes that do not appear in the output."""
    kernel, output = equation.split(",")[1].split("->")
    axes = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    return axes if len(kernel) == rank else all_but_last(rank)


WHOLE = ("bias", "gamma", "beta", "scale", "alpha")
"""Variables that are one unit, whatever their rank."""

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
"""Variables that a bias is added after, the last one there is."""

_LOOKED_UP = ("embeddings", "lora_embeddings_a")

# A layer's name for its weight is fixed by its class, and these mean one thing in all of them.
ANYWHERE: dict[str, Rule] = {
    "recurrent_kernel": all_but_last,
    "depthwise_kernel": spatial,
    "pointwise_kernel": all_but_last,
    "embeddings": all_but_first,
    "reverse_embeddings": all_but_last,
    "lora_kernel_a": all_but_last,
    "lora_kernel_b": all_but_last,
    "lora_embeddings_a": all_but_first,
    "lora_embeddings_b": all_but_last,
}

KERNEL_RULES: dict[str, Rule | None] = {
    "EinsumDense": None,
    "Dense": all_but_last,
    "Embedding": None,
    "Conv1DTranspose": all_but_last_but_one,
    "Conv2DTranspose": all_but_last_but_one,
    "Conv3DTranspose": all_but_last_but_one,
    "DepthwiseConv1D": spatial,
    "DepthwiseConv2D": spatial,
    "SeparableConv1D": None,
    "SeparableConv2D": None,
    "Conv1D": all_but_last,
    "Conv2D": all_but_last,
    "Conv3D": all_but_last,
    "BatchNormalization": None,
    "GroupNormalization": None,
    "LayerNormalization": None,
    "RMSNormalization": None,
    "PReLU": None,
}
"""Of each class of Keras with units, the rule for its `kernel`; None where that has none."""


def units_in(layer: Any) -> dict[int, Units]:
    """Return the units of the variables of a layer, without its sublayers', by their id.

    Nothing is known of a variable that no layer of Keras has, nor of a layer that is neither
    one of Keras nor derived from one.
    """
    own = own_variables(layer)
    rules = _rules_for(layer, own)
    if rules is None:
        return dict.fromkeys(map(id, own), UNKNOWN)
    # Packed, the kernel has another shape.
    kernels = [v for v in own if v.name in KERNELS and layer.quantization_mode != "int4"]
    # Of a separable convolution the pointwise kernel, of a recurrent cell not the recurrent one.
    before_bias = units_by_rule(kernels[-1].name, kernels[-1].shape, rules) if kernels else UNKNOWN
    return {
        id(variable): units_by_rule(variable.name, variable.shape, rules, before_bias)
        for variable in own
    }


def units_by_rule(
    name: str, shape: Sequence[int], rules: Mapping[str, Rule], before_bias: Units = UNKNOWN
) -> Units:
    """Return the units of a variable of a layer.

    Args:
        name: the layer's own name for it.
        shape: its shape.
        rules: the layer's rules, by such names.
        before_bias: units of the kernel that a bias is added after.
    """
    if name in WHOLE:
        return Units(tuple(range(len(shape))), before_bias.fan_in if name == "bias" else 1)
    if name not in rules:
        return UNKNOWN
    axes = rules[name](len(shape))
    return Units(axes, 1 if name in _LOOKED_UP else math.prod(shape[axis] for axis in axes))


def _rules_for(layer: Any, own: Sequence[Any]) -> dict[str, Rule] | None:
    """Return the rules of the first class above that `layer` is an instance of."""
    if any(variable.name == "recurrent_kernel" for variable in own):
        # A recurrent cell; that of ConvLSTM has no public class.
        return {**ANYWHERE, "kernel": all_but_last}
    for name, rule in KERNEL_RULES.items():
        # Older Keras lacks some.
        cls = getattr(keras.layers, name, None)
        if cls is not None and isinstance(layer, cls):
            if name == "EinsumDense":
                rule = partial(_contracted, layer.equation)
            return {**ANYWHERE, "kernel": rule} if rule else dict(ANYWHERE)
    return None
