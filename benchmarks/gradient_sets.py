"""Sets of gradients to clip, as in large and small models."""

from math import prod
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks import transformer


class Rows(NamedTuple):
    """The gradient of an embedding: some of its rows, a few of them repeated.

    Attributes:
        values: array (rows, width).
        indices: integers, which row of the variable each is of.
        shape: of the variable.
    """

    values: np.ndarray
    indices: np.ndarray
    shape: tuple[int, int]


class GradientSet(NamedTuple):
    """The gradients that one training step has to clip.

    Attributes:
        shapes: of the variables.
        rows: how many rows of the first variable have a gradient, where the backend knows
            sparse gradients; None for all.
        scale: standard deviation of the entries.
    """

    shapes: list[tuple[int, ...]]
    rows: int | None = None
    scale: float = 1.0


# At this scale, squares of float32 are infinite.
_OVERFLOWING = 1e25

_TRANSFORMERS = {
    "full": transformer.Size(5, 512, 8, vocabulary=8192, length=128, sequences=8),
    "quick": transformer.Size(3, 128, 4, vocabulary=2048, length=64, sequences=4),
    "smoke": transformer.Size(1, 8, 2, vocabulary=32, length=8, sequences=2),
}

_DENSE = {
    "full": {"kernel": [(8192, 4096)], "300": [(316, 316)] * 300, "1,000": [(32, 32)] * 1000},
    "quick": {"kernel": [(2048, 1024)], "300": [(64, 64)] * 60, "1,000": [(32, 32)] * 150},
    "smoke": {"kernel": [(32, 16)], "300": [(4, 4)] * 6, "1,000": [(2, 2)] * 10},
}


def gradient_sets(size: str) -> dict[str, GradientSet]:
    """Return the sets of a size, `"full"`, `"quick"` or `"smoke"`, by name."""
    dense = _DENSE[size]
    text = _TRANSFORMERS[size]
    return {
        "kernel": GradientSet(dense["kernel"]),
        "300 kernels": GradientSet(dense["300"]),
        "1,000 kernels": GradientSet(dense["1,000"]),
        "transformer": GradientSet(
            shapes_of(transformer.make_model(text)), rows=text.sequences * text.length
        ),
        "demo": GradientSet(shapes_of(demo_model())),
        "300 kernels, squares overflow": GradientSet(dense["300"], scale=_OVERFLOWING),
    }


def demo_model() -> Any:
    """Return the recurrent network of `make demo`."""
    return keras.Sequential(
        [keras.Input((64, 1)), keras.layers.SimpleRNN(64), keras.layers.Dense(10)]
    )


def shapes_of(model: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in model.trainable_variables]


def draw(own: GradientSet, seed: int, sparse: bool) -> tuple[np.ndarray, list[Any]]:
    """Return all numbers of a set as one array, and the gradients, which share its memory."""
    generator = np.random.default_rng(seed)
    shapes = list(own.shapes)
    if sparse and own.rows is not None:
        vocabulary, width = shapes[0]
        shapes[0] = (own.rows, width)
    flat = generator.standard_normal(sum(map(prod, shapes)), dtype="float32")
    flat *= np.float32(own.scale)
    ends = np.cumsum([prod(shape) for shape in shapes])
    parts = np.split(flat, ends[:-1])
    gradients: list[Any] = [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
    if sparse and own.rows is not None:
        # Like the words of a text: few are frequent.
        indices = generator.zipf(1.3, size=own.rows) % vocabulary
        gradients[0] = Rows(gradients[0], indices.astype("int32"), (vocabulary, width))
    return flat, gradients
