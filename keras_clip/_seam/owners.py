"""The layers that variables belong to."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_clip._seam.live_objects import instances_of
from keras_clip.types import Variable

# Where a layer keeps the variables that are its own, not its sublayers'; names of Keras.
_OWN_VARIABLES = ("_trainable_variables", "_non_trainable_variables")


def owners_of(variables: Sequence[Variable]) -> dict[int, list[Any]]:
    """Return the layers that hold each variable as their own, by the variable's id.

    An optimizer is given variables only, and Keras keeps no way back from a variable to its
    layer: its path ends in names that users and enclosing layers choose, so that "dense" may
    be the name of a convolution. Hence a look at every object of the process, once per build.

    Empty for a variable that no layer holds. Several where a layer refers to a variable of
    another one, as `SpectralNormalization` does.
    """
    owners: dict[int, list[Any]] = {id(variable): [] for variable in variables}
    for layer in instances_of(keras.layers.Layer):
        for variable in own_variables(layer):
            if id(variable) in owners:
                owners[id(variable)].append(layer)
    return owners


def own_variables(layer: Any) -> list[Variable]:
    """Return the variables of a layer without those of its sublayers."""
    # Not by `getattr`, which may run a user's code on a layer that is not complete yet.
    attributes = vars(layer)
    return [variable for name in _OWN_VARIABLES for variable in attributes.get(name) or ()]
