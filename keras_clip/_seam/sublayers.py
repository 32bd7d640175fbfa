"""The layers inside a layer, and the variables that are a layer's own."""

from typing import Any

from keras_clip.types import Variable

PRIVATE_LAYER_NAMES: dict[str, str] = {
    "_flatten_layers": "the layers inside a model or a layer; the public `layers` has those of "
    "models only, and none of wrappers, cells and attention",
}


def with_sublayers(layer: Any) -> list[Any]:
    """Return a layer or model and all layers inside."""
    return list(layer._flatten_layers())


def own_variables(layer: Any) -> list[Variable]:
    """Return the variables of a layer without those of its sublayers."""
    inside = {
        id(variable)
        for sublayer in layer._flatten_layers(include_self=False, recursive=False)
        for variable in sublayer.variables
    }
    return [variable for variable in layer.variables if id(variable) not in inside]
