"""The members of a `keras.optimizers.MultiOptimizer`."""

import keras

from keras_clip.types import Optimizer


def is_multi_optimizer(optimizer: Optimizer) -> bool:
    """Whether it is a `MultiOptimizer`, which Keras has from 3.14 on."""
    multi_optimizer = getattr(keras.optimizers, "MultiOptimizer", None)
    return multi_optimizer is not None and isinstance(optimizer, multi_optimizer)


def members_of(optimizer: Optimizer) -> list[Optimizer]:
    """Return the known members of a MultiOptimizer, or none for another optimizer.

    A MultiOptimizer that chooses members by a function knows them once it is built.
    """
    return list(optimizer.optimizers) if is_multi_optimizer(optimizer) else []


def built_members(optimizer: Optimizer) -> list[Optimizer]:
    """Return the members with a variable to update."""
    return [member for member in members_of(optimizer) if member.built]
