"""A text decoder of any size, and tokens for it."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers


class Size(NamedTuple):
    """The dimensions of a transformer and of its batches."""

    blocks: int
    width: int
    heads: int
    vocabulary: int
    length: int
    sequences: int


# GPT-2's smallest, with a smaller vocabulary: about 100 million parameters.
FULL = Size(blocks=12, width=768, heads=12, vocabulary=8192, length=1024, sequences=32)
QUICK = Size(blocks=2, width=64, heads=4, vocabulary=256, length=32, sequences=4)


def make_model(size: Size) -> Any:
    keras.utils.set_random_seed(0)
    tokens = keras.Input((size.length,), dtype="int32")
    hidden = layers.Embedding(size.vocabulary, size.width)(tokens)
    for _ in range(size.blocks):
        hidden = _block(hidden, size)
    logits = layers.Dense(size.vocabulary)(layers.LayerNormalization()(hidden))
    return keras.Model(tokens, logits)


def _block(hidden: Any, size: Size) -> Any:
    attention = layers.MultiHeadAttention(size.heads, size.width // size.heads)
    normal = layers.LayerNormalization()(hidden)
    hidden = hidden + attention(normal, normal, use_causal_mask=True)
    wide = layers.Dense(4 * size.width, activation="gelu")(layers.LayerNormalization()(hidden))
    return hidden + layers.Dense(size.width)(wide)


def make_batches(size: Size, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random tokens, and for each the next one."""
    generator = np.random.default_rng(0)
    shape = (count, size.sequences, size.length + 1)
    tokens = generator.integers(0, size.vocabulary, size=shape, dtype="int32")
    return [(each[:, :-1], each[:, 1:]) for each in tokens]
