"""The layers that variables belong to."""

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import keras

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
    for layer in _all_layers():
        for variable in own_variables(layer):
            if id(variable) in owners:
                owners[id(variable)].append(layer)
    return owners


def own_variables(layer: Any) -> list[Variable]:
    """Return the variables of a layer without those of its sublayers."""
    # Not by `getattr`, which may run a user's code on a layer that is not complete yet.
    attributes = vars(layer)
    return [variable for name in _OWN_VARIABLES for variable in attributes.get(name) or ()]


def _all_layers() -> Iterator[Any]:
    # By the identity of the type, as `isinstance` asks the object, and some objects answer by
    # importing a module or by raising.
    layer_types = {id(cls) for cls in _with_subclasses(keras.layers.Layer)}
    return (thing for thing in gc.get_objects() if id(type(thing)) in layer_types)


def _with_subclasses(cls: type) -> Iterator[type]:
    pending, seen = [cls], {cls}
    while pending:
        current = pending.pop()
        yield current
        # Past a metaclass that has a `__subclasses__` of its own.
        subclasses: list[type] = type.__subclasses__(current)
        new = [subclass for subclass in subclasses if subclass not in seen]
        seen.update(new)
        pending.extend(new)
