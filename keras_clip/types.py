"""Names for the values that pass between modules.

Keras has no type information, and a gradient is a different class on every backend. To a type
checker these are `Any`. To a reader the names tell the meaning.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active backend."""

Gradient: TypeAlias = Any
"""A tensor of the active backend, or a `tf.IndexedSlices` on TensorFlow."""

Gradients: TypeAlias = Sequence[Gradient]

Variable: TypeAlias = Any
"""A `keras.Variable`, or a `tf.Variable` that the user trains directly."""

FactorPair: TypeAlias = tuple[Tensor, Tensor]
"""Two factors, whose product might be flushed to zero."""

Optimizer: TypeAlias = Any
"""A `keras.optimizers.Optimizer`."""

ThresholdValue: TypeAlias = float | Callable[[Tensor], Any]
"""A number, a `LearningRateSchedule`, or a callable of the step."""
