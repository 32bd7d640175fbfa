"""Layers of the tasks that are fast under `vmap`, unlike Keras's."""

from typing import Any

import keras
from keras import layers, ops


class Convolution(keras.layers.Layer):
    """A convolution of 3 by 3 with padding, as a product of matrices.

    The same function as `Conv2D(filters, 3, padding="same")`. For many sets of weights JAX turns
    `Conv2D` into a convolution with as many groups, which is slow.

    Args:
        filters: int, channels of the output.
        strides: int, distance of the kept rows and columns.
        activation: name of a function, or None.
    """

    def __init__(self, filters: int, strides: int = 1, activation: str | None = None) -> None:
        super().__init__()
        self.filters = filters
        self.strides = strides
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int, ...]) -> None:
        shape = (3, 3, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="he_normal", name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, images: Any) -> Any:
        height, width = images.shape[1:3]
        padded = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        moved = [
            padded[:, row : row + height : self.strides, column : column + width : self.strides]
            for row in range(3)
            for column in range(3)
        ]
        kernel = ops.reshape(self.kernel, (-1, self.filters))
        return self.activation(ops.matmul(ops.concatenate(moved, axis=-1), kernel) + self.bias)


class Position(keras.layers.Layer):
    """Add a trained vector to each position of a sequence."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.positions = self.add_weight(
            shape=input_shape[1:], initializer=keras.initializers.RandomNormal(0.0, 0.02)
        )

    def call(self, sequence: Any) -> Any:
        return sequence + self.positions


def transformer_block(hidden: Any, width: int, heads: int, *, is_causal: bool) -> Any:
    """Attention and two dense layers, each after a layer normalization."""
    attention = layers.MultiHeadAttention(heads, width // heads, flash_attention=False)
    normal = layers.LayerNormalization()(hidden)
    hidden = hidden + attention(normal, normal, use_causal_mask=is_causal)
    wide = layers.Dense(4 * width, activation="gelu")(layers.LayerNormalization()(hidden))
    return hidden + layers.Dense(width)(wide)
