"""The axes of a variable that lead from the inputs to one output, by the class of its layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_clip._seam.sublayers import own_variables
from keras_clip.layers.units import UNKNOWN, Axes, Units

Rule = Callable[[int], Axes]
"""Returns the axes of one unit for the rank of a variable."""


def all_but_last(rank: int) -> Axes:
    """For most kernels, (..., inputs, outputs)."""
    return tuple(range(rank - 1))


def all_but_first(rank: int) -> Axes:
    """For a table: one lookup uses one row.

    optax uses columns, which mix all tokens: a frequent token would get all others clipped.
    """
    return tuple(range(1, rank))


def all_but_last_but_one(rank: int) -> Axes:
    """For a transposed convolution, (..., outputs, inputs)."""
    return (*range(rank - 2), rank - 1)


def spatial(rank: int) -> Axes:
    """For a depthwise convolution, (..., channels, multiplier): each pair is an output."""
    return tuple(range(rank - 2))


def _contracted(equation: str, rank: int) -> Axes:
    """For `EinsumDense`: the axes that do not appear in the output."""
    kernel, output = equation.split(",")[1].split("->")
    axes = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    return axes if len(kernel) == rank else all_but_last(rank)


WHOLE = ("bias", "gamma", "beta", "scale", "alpha")
"""Variables that are one unit, whatever their rank."""

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
"""Variables before a bias; the last one of a layer decides the fan-in of the bias."""

_LOOKED_UP = ("embeddings", "lora_embeddings_a")

# The class of a layer fixes the names of its weights. These names mean the same in all classes.
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
"""For each Keras class with units, the rule for its `kernel`, or None if it has none."""


def units_in(layer: Any) -> dict[int, Units]:
    """Return the units of the variables of a layer, without its sublayers, by their id.

    The units are unknown if the layer is neither a Keras layer nor a subclass of one, or if Keras
    has no rule for the name.
    """
    own = own_variables(layer)
    rules = _rules_for(layer, own)
    if rules is None:
        return dict.fromkeys(map(id, own), UNKNOWN)
    # A packed int4 kernel has another shape.
    kernels = [v for v in own if v.name in KERNELS and layer.quantization_mode != "int4"]
    # The last one: the pointwise kernel of a separable convolution, the kernel of a recurrent cell.
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
        name: name of the variable within the layer.
        shape: shape of the variable.
        rules: the layer's rules, by name.
        before_bias: units of the kernel before a bias.
    """
    if name in WHOLE:
        return Units(tuple(range(len(shape))), before_bias.fan_in if name == "bias" else 1)
    if name not in rules:
        return UNKNOWN
    axes = rules[name](len(shape))
    return Units(axes, 1 if name in _LOOKED_UP else math.prod(shape[axis] for axis in axes))


def _rules_for(layer: Any, own: Sequence[Any]) -> dict[str, Rule] | None:
    """Return the rules of the first class in `KERNEL_RULES` that `layer` is an instance of."""
    if any(variable.name == "recurrent_kernel" for variable in own):
        # Recurrent cells, by their variable: the cell of ConvLSTM has no public class.
        return {**ANYWHERE, "kernel": all_but_last}
    for name, rule in KERNEL_RULES.items():
        # Older versions of Keras lack some classes.
        cls = getattr(keras.layers, name, None)
        if cls is not None and isinstance(layer, cls):
            if name == "EinsumDense":
                rule = partial(_contracted, layer.equation)
            return {**ANYWHERE, "kernel": rule} if rule else dict(ANYWHERE)
    return None
