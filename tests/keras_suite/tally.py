"""Counts of the events in a test, without changes of the test."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import keras

from keras_clip.applying import Applying

_UPDATE = "_backend_update_step"


@dataclass
class Tally:
    """Numbers of events during a count.

    Attributes:
        requests: calls of a stand-in, also calls that Keras refused.
        wrappers: optimizers that were wrapped.
        clips: gradients that went through a `ClippedOptimizer`, one for each update.
        updates: updates by Keras's optimizers, however they were called.
    """

    requests: int = 0
    wrappers: int = 0
    clips: int = 0
    updates: int = 0


current = Tally()
"""The tally that counts now."""


@contextmanager
def counting() -> Iterator[Tally]:
    """Count the events of the body in a separate tally."""
    global current
    before, current = current, Tally()
    # On torch Keras loads the classes that update with the first optimizer.
    keras.optimizers.SGD()
    with ExitStack() as patches:
        patches.enter_context(_patched(Applying, "_clip", _counting_clips))
        for owner in _classes_that_define(_UPDATE):
            patches.enter_context(_patched(owner, _UPDATE, _counting_updates))
        try:
            yield current
        finally:
            current = before


def _patched(
    owner: type, name: str, counted: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> AbstractContextManager[Any]:
    return mock.patch.object(owner, name, counted(vars(owner)[name]))


def _counting_clips(original: Callable[..., Any]) -> Callable[..., Any]:
    def clip(*args: Any, **kwargs: Any) -> Any:
        current.clips += 1
        return original(*args, **kwargs)

    return clip


def _counting_updates(original: Callable[..., Any]) -> Callable[..., Any]:
    def update(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        before = current.updates
        result = original(optimizer, *args, **kwargs)
        # Count once, also if the method of a subclass calls that of its base, as Nadam's does.
        current.updates = before + 1
        return result

    return update


def _classes_that_define(name: str) -> list[type]:
    bases = [c for c in keras.optimizers.Optimizer.__mro__ if name in vars(c)]
    classes = {bases[-1]: None}
    for known in iter(waiting := list(classes)):
        for subclass in known.__subclasses__():
            if subclass not in classes:
                classes[subclass] = None
                waiting.append(subclass)
    return [c for c in classes if name in vars(c)]
