"""Stand-ins that Keras tests get instead of optimizer classes: they wrap the optimizers."""

from collections.abc import Callable
from typing import Any

import keras

from keras_clip import ClippedOptimizer

from . import tally

NEVER_REACHED = 1e30
"""Above every norm in Keras's tests, and finite, so that norm and clip are computed."""

Optimizer = keras.optimizers.Optimizer
LossScaleOptimizer = keras.optimizers.LossScaleOptimizer
# Keras has it from 3.14 on; `issubclass` takes the empty tuple for "of nothing".
MultiOptimizer = getattr(keras.optimizers, "MultiOptimizer", ())

Decision = Callable[[type], bool]
"""Whether optimizers of a class are to be wrapped."""


def each_by_itself(optimizer_class: type) -> bool:
    """Wrap every optimizer that updates variables, also one that another optimizer holds."""
    return not issubclass(optimizer_class, (LossScaleOptimizer, MultiOptimizer))


def multi_optimizer_as_a_whole(optimizer_class: type) -> bool:
    """Wrap `MultiOptimizer`, and leave its members alone."""
    return issubclass(optimizer_class, MultiOptimizer)


def stand_in_for(value: Any, decision: Decision) -> Any:
    """Return the object that a Keras test gets when it imports `value`: mostly `value`."""
    if value is keras.optimizers.get:
        return _get
    if value is LossScaleOptimizer:
        return _LossScaleOptimizer()
    if value is Optimizer:
        return _Base()
    if isinstance(value, type) and issubclass(value, Optimizer) and decision(value):
        return _WrappingClass(value)
    return value


def _wrapped(make: Callable[[], Any]) -> ClippedOptimizer:
    tally.current.requests += 1
    # Keras's tests of sparse gradients forbid assignments of more than a scalar by itself, which
    # is how JAX writes a row.
    size = 0 if keras.config.backend() == "jax" else 10_000
    wrapper = ClippedOptimizer(make(), max_norm=NEVER_REACHED, history_size=size)
    tally.current.wrappers += 1
    return wrapper


class _WrappingClass:
    """Called like the class it stands for, it returns a wrapped optimizer.

    `isinstance` answers as for a user: a wrapped SGD is not an SGD.
    """

    def __init__(self, optimizer_class: type) -> None:
        self._class = optimizer_class

    def __call__(self, *args: Any, **kwargs: Any) -> ClippedOptimizer:
        return _wrapped(lambda: self._class(*args, **kwargs))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._class)


class _Base:
    """Stands for `Optimizer`: the optimizers of a subclass are wrapped."""

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (_OptimizerMadeWrapped,)


class _MakesWrapped(type(Optimizer)):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        make = super().__call__
        return _wrapped(lambda: make(*args, **kwargs))


class _OptimizerMadeWrapped(Optimizer, metaclass=_MakesWrapped):
    pass


class _LossScaleOptimizer:
    """Stands for `LossScaleOptimizer`, and takes a wrapper for an instance of it.

    Keras's tests of sparse gradients replace methods of the optimizer that does the update.
    They look for it under `inner_optimizer`, but only of a `LossScaleOptimizer`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return LossScaleOptimizer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(LossScaleOptimizer, name)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, (LossScaleOptimizer, ClippedOptimizer))


def _get(identifier: Any) -> Any:
    if isinstance(identifier, (str, dict)):
        return _wrapped(lambda: keras.optimizers.get(identifier))
    return keras.optimizers.get(identifier)
