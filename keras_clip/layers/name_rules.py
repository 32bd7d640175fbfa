"""The units of a variable, from its path alone, if the path is unambiguous."""

import re
from collections.abc import Iterable, Sequence

from keras_clip.layers.layer_rules import (
    ANYWHERE,
    KERNEL_RULES,
    KERNELS,
    WHOLE,
    Rule,
    all_but_last,
    units_by_rule,
)
from keras_clip.layers.paths import path_of
from keras_clip.layers.units import UNKNOWN, Units
from keras_clip.types import Variable

# Automatic layer names of Keras, with the class and the rank of the kernel.
_AUTOMATIC_NAMES: dict[str, tuple[str, int]] = {
    "dense": ("Dense", 2),
    **{f"conv{n}d": (f"Conv{n}D", n + 2) for n in (1, 2, 3)},
    **{f"conv{n}d_transpose": (f"Conv{n}DTranspose", n + 2) for n in (1, 2, 3)},
    **{f"depthwise_conv{n}d": (f"DepthwiseConv{n}D", n + 2) for n in (1, 2)},
}
_OF_ONE_UNIT = {
    "batch_normalization",
    "group_normalization",
    "layer_normalization",
    "rms_normalization",
    "p_re_lu",
}
_ATTENTIONS = ("multi_head_attention", "grouped_query_attention")
# Kernels (inputs, heads, size of a head), except the last one: (heads, size of a head, outputs).
_OF_ATTENTION: dict[str, Rule] = {
    "query": lambda rank: (0,),
    "key": lambda rank: (0,),
    "value": lambda rank: (0,),
    "attention_output": lambda rank: (0, 1),
}


def units_by_name(variables: Sequence[Variable], known: Iterable[int]) -> list[Units]:
    """Return the units of variables whose layers are not given.

    An automatic name of Keras such as "conv2d_1" tells the class of a layer. A name that a user
    chose does not. The layer's class chooses the name of a variable: "embeddings",
    "recurrent_kernel" and "bias" mean the same everywhere, and so does a "kernel" of two axes.

    Args:
        variables: all variables of the optimizer, because the name of one may explain another.
        known: ids of variables whose layer is given.
    """
    known = set(known)
    neighbours: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for variable in variables:
        layer, name = _layer_and_name(variable)
        neighbours.setdefault(layer, []).append((name, tuple(variable.shape)))
    return [_units(v, neighbours, trusts_layer=id(v) not in known) for v in variables]


def _units(
    variable: Variable,
    neighbours: dict[str, list[tuple[str, tuple[int, ...]]]],
    trusts_layer: bool,
) -> Units:
    layer, name = _layer_and_name(variable)
    shape = tuple(variable.shape)
    beside = neighbours[layer] if layer else []
    of_kernels = [
        units_by_rule(kernel, size, _rules(layer if trusts_layer else "", beside, len(size)))
        for kernel, size in beside
        if kernel in KERNELS
    ]
    # Two layers with one path may differ.
    same = len({units.fan_in for units in of_kernels}) == 1 or "pointwise_kernel" in dict(beside)
    before_bias = of_kernels[-1] if of_kernels and same else UNKNOWN
    if len(shape) <= 1 and name != "bias":
        return Units(tuple(range(len(shape))), 1)
    if name in WHOLE and name != "bias" and not (trusts_layer and _is_of_one_unit(layer)):
        return UNKNOWN
    rules = _rules(layer if trusts_layer else "", beside, len(shape))
    return units_by_rule(name, shape, rules, before_bias)


def _rules(layer: str, beside: Sequence[tuple[str, tuple[int, ...]]], rank: int) -> dict[str, Rule]:
    kernel = _rule_for_kernel(layer, "recurrent_kernel" in dict(beside), rank)
    return {**ANYWHERE, "kernel": kernel} if kernel else ANYWHERE


def _rule_for_kernel(layer: str, is_recurrent: bool, rank: int) -> Rule | None:
    *_, outer, inner = ["", *map(_without_number, layer.split("/"))]
    if is_recurrent:
        return all_but_last
    if outer in _ATTENTIONS and inner in _OF_ATTENTION and rank > 2:
        return _OF_ATTENTION[inner]
    if inner == "einsum_dense":
        # The equation of the layer decides.
        return None
    cls, expected_rank = _AUTOMATIC_NAMES.get(inner, ("", 0))
    if rank == expected_rank:
        return KERNEL_RULES[cls]
    return all_but_last if rank == 2 else None


def _is_of_one_unit(layer: str) -> bool:
    return _without_number(layer.rpartition("/")[2]) in _OF_ONE_UNIT


def _layer_and_name(variable: Variable) -> tuple[str, str]:
    # The names of native TensorFlow variables end in the number of an output.
    layer, _, name = path_of(variable).partition(":")[0].rpartition("/")
    return layer, name


def _without_number(name: str) -> str:
    return re.sub(r"_\d+$", "", name)
