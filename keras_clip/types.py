"""Names for the values that pass between modules.

Keras has no type information, and a gradient is a different class on every backend. To a type
checker these are `Any`. To a reader they say what is meant.
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

Optimizer: TypeAlias = Any
"""A `keras.optimizers.Optimizer`."""

ClipFunction: TypeAlias = Callable[
    [list[Gradient], list[Variable]], tuple[list[Gradient], Tensor | None]
]
"""Whole-batch gradients and their variables, to the gradients to use instead; and whether the
update is not to be applied at all, a boolean scalar tensor, or None where none is skipped."""

SkipFunction: TypeAlias = Callable[[list[Gradient], list[Variable]], None]
"""Called with the whole-batch gradients of an update that is skipped, and their variables."""

BoundFunction: TypeAlias = Callable[[Sequence[Variable], Tensor], list[tuple[Variable, Tensor]]]
"""Variables and the step, to those of the variables that have a bound, and the bound."""

ThresholdValue: TypeAlias = float | Callable[[Tensor], Any]
"""A number, a `LearningRateSchedule`, or a callable of the step."""
