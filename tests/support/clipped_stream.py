"""A clipper driven step by step, with its result at each step."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np

from keras_clip import ClippedOptimizer
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import values


class ClippedStream:
    """One compiled step around `clipper`, for gradients of the given shapes.

    With a learning rate of 1 and variables of 0, a step leaves minus the clipped gradients in
    the variables, exactly.
    """

    def __init__(
        self, clipper: Any, shapes: Sequence[tuple[int, ...]], dtype: str = "float32"
    ) -> None:
        self.clipper = clipper
        self.variables = [keras.Variable(np.zeros(shape, dtype), dtype=dtype) for shape in shapes]
        self.optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
        self._apply = compiled_step(self.optimizer, self.variables)
        self._start = values(clipper.variables)

    def reset(self) -> None:
        """Reset the clipper's variables to their first values."""
        for variable, value in zip(self.clipper.variables, self._start, strict=True):
            variable.assign(value)

    def clip(self, gradients: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Take a step; return the gradients that the wrapped optimizer got."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        self._apply(gradients)
        return [0 - value for value in values(self.variables)]


def shared_stream(
    clipper_class: Any, shapes: Sequence[tuple[int, ...]], **arguments: Any
) -> ClippedStream:
    """Return a reset stream; streams with equal arguments share one compiled step."""
    stream = _made_once(clipper_class, tuple(shapes), tuple(arguments.items()))
    stream.reset()
    return stream


@cache
def _made_once(clipper_class: Any, shapes: Any, arguments: Any) -> ClippedStream:
    return ClippedStream(clipper_class(**dict(arguments)), shapes)
