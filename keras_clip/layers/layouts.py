"""Which axes of a variable lead from inputs to one output, by the layer it belongs to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_clip._seam.owners import own_variables, owners_of
from keras_clip.types import Variable

Axes = tuple[int, ...]
Rule = Callable[[Any, int], Axes]
"""A layer and the rank of its variable, to the axes that are reduced for one output unit."""


@dataclass(frozen=True)
class Layout:
    """How a variable is laid out.

    Args:
        unit_axes: axes over which one output unit extends: a norm over them is that of one
            unit.
        fan_in: number of entries that one output is a sum over; 1 where there is no sum.
    """

    unit_axes: Axes
    fan_in: int


def layouts_of(variables: Sequence[Variable]) -> list[Layout]:
    """Return the layout of each variable, by Keras's conventions for its layer.

    A kernel's unit is what one output is computed with: a column of Dense, a filter of a
    convolution, one output of one head of attention. A row of an embedding is a unit. Biases,
    gains and the like are one unit, whatever their rank. A variable of no layer, or of one
    that is not Keras's, is laid out as optax assumes.
    """
    owners = owners_of(variables)
    return [_layout(variable, owners[id(variable)]) for variable in variables]


def _layout(variable: Variable, layers: Sequence[Any]) -> Layout:
    shape = tuple(variable.shape)
    for layer in layers:
        rules = _rules_for(layer)
        if rules is None:
            continue
        name = variable.name
        if name in rules:
            axes = rules[name](layer, len(shape))
            fan_in = 1 if name in _LOOKED_UP else _size(shape, axes)
            return Layout(axes, fan_in)
        if name in _WHOLE:
            return Layout(tuple(range(len(shape))), _fan_in_of_bias(name, layer, rules))
    return Layout(_axes_of_optax(shape), math.prod(shape[:-1]) if len(shape) > 1 else 1)


def _fan_in_of_bias(name: str, layer: Any, rules: dict[str, Rule]) -> int:
    if name != "bias":
        return 1
    # The last kernel that is no recurrent one is what the bias is added to: of a separable
    # convolution the pointwise one.
    kernels = [
        variable
        for variable in own_variables(layer)
        if variable.name in ("kernel", "depthwise_kernel", "pointwise_kernel")
    ]
    if not kernels:
        return 1
    shape = tuple(kernels[-1].shape)
    return _size(shape, rules[kernels[-1].name](layer, len(shape)))


def _size(shape: Sequence[int], axes: Axes) -> int:
    return math.prod(shape[axis] for axis in axes)


def _axes_of_optax(shape: tuple[int, ...]) -> Axes:
    rank = len(shape)
    if sum(size != 1 for size in shape) <= 1:
        return tuple(range(rank))
    # optax refuses ranks from 6 on.
    return (0,) if rank <= 3 else tuple(range(rank - 1))


def _all_but_last(layer: Any, rank: int) -> Axes:
    return tuple(range(rank - 1))


def _all_but_first(layer: Any, rank: int) -> Axes:
    return tuple(range(1, rank))


def _all_but_last_but_one(layer: Any, rank: int) -> Axes:
    """Of a transposed convolution, (..., outputs, inputs)."""
    return (*range(rank - 2), rank - 1)


def _spatial(layer: Any, rank: int) -> Axes:
    """Of a depthwise convolution, (..., channels, multiplier): each pair is an output."""
    return tuple(range(rank - 2))


def _contracted(layer: Any, rank: int) -> Axes:
    """Of `EinsumDense`: the axes that do not appear in the output."""
    kernel, output = layer.equation.split(",")[1].split("->")
    axes = tuple(axis for axis, letter in enumerate(kernel) if letter not in output)
    return axes if len(kernel) == rank else _all_but_last(layer, rank)


_LOOKED_UP = ("embeddings", "lora_embeddings_a")
_WHOLE = ("bias", "gamma", "beta", "scale", "alpha")

_LORA: dict[str, Rule] = {"lora_kernel_a": _all_but_last, "lora_kernel_b": _all_but_last}
_KERNEL: dict[str, Rule] = {"kernel": _all_but_last, **_LORA}

# A layer's own name for its weight is fixed by its class, and `add_weight` keeps it.
_LAYERS: dict[str, dict[str, Rule]] = {
    "EinsumDense": {"kernel": _contracted, **_LORA},
    "Dense": _KERNEL,
    # optax takes columns of the table, which mix all tokens: one frequent token would have
    # every other clipped. A row is what one lookup computes with.
    "Embedding": {
        "embeddings": _all_but_first,
        "lora_embeddings_a": _all_but_first,
        "lora_embeddings_b": _all_but_last,
        "reverse_embeddings": _all_but_last,
    },
    "Conv1DTranspose": {"kernel": _all_but_last_but_one},
    "Conv2DTranspose": {"kernel": _all_but_last_but_one},
    "Conv3DTranspose": {"kernel": _all_but_last_but_one},
    "DepthwiseConv1D": {"kernel": _spatial},
    "DepthwiseConv2D": {"kernel": _spatial},
    "SeparableConv1D": {"depthwise_kernel": _spatial, "pointwise_kernel": _all_but_last},
    "SeparableConv2D": {"depthwise_kernel": _spatial, "pointwise_kernel": _all_but_last},
    "Conv1D": _KERNEL,
    "Conv2D": _KERNEL,
    "Conv3D": _KERNEL,
    "BatchNormalization": {},
    "GroupNormalization": {},
    "LayerNormalization": {},
    "RMSNormalization": {},
    "PReLU": {},
}


def _rules_for(layer: Any) -> dict[str, Rule] | None:
    """Return the rules of the first class above that `layer` is an instance of."""
    if any(variable.name == "recurrent_kernel" for variable in own_variables(layer)):
        # A recurrent cell; that of ConvLSTM has no public class.
        return {"kernel": _all_but_last, "recurrent_kernel": _all_but_last}
    for name, rules in _LAYERS.items():
        # Older Keras lacks some.
        cls = getattr(keras.layers, name, None)
        if cls is not None and isinstance(layer, cls):
            return rules
    return None
