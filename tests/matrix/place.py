"""Runs of one strategy in one precision."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_clip import ClippedOptimizer
from tests.matrix.precisions import Precision
from tests.matrix.problem import LEARNING_RATE, MAX_NORM, Batch, Course, flat
from tests.matrix.strategy import Strategy

LossScale = keras.optimizers.LossScaleOptimizer


class Place:
    """Makes models there, trains them, and returns the results.

    Args:
        strategy: how training is distributed.
        precision: of the computation; already in use.
        clipped: whether the optimizer is wrapped.
        builtin: instead, whether Keras clips by itself.
    """

    def __init__(
        self, strategy: Strategy, precision: Precision, clipped: bool, builtin: bool = False
    ) -> None:
        self.strategy = strategy
        self.precision = precision
        self.clipped = clipped
        self.builtin = builtin

    @property
    def usual_way(self) -> str:
        return self.strategy.usual_way

    @property
    def scales_dynamically(self) -> bool:
        return self.precision.policy == "mixed_float16"

    def optimizer(self, accumulate: int | None, **options: Any) -> Any:
        inner = keras.optimizers.SGD(
            LEARNING_RATE,
            momentum=self.strategy.momentum,
            gradient_accumulation_steps=accumulate,
            loss_scale_factor=self.precision.loss_scale_factor,
            global_clipnorm=MAX_NORM if self.builtin else None,
        )
        if not self.clipped:
            return inner
        return ClippedOptimizer(inner, **({"max_norm": MAX_NORM} | options))

    def make(self, accumulate: int | None = None, **options: Any) -> Any:
        """A model with its optimizer, both built."""
        with self.strategy.scope():
            model = self.strategy.make_model()
            if self.precision.float8:
                for layer in model.layers:
                    layer.quantize("float8")
            model.compile(self.optimizer(accumulate, **options), loss="mse")
            model.optimizer.build(model.trainable_variables)
        return model

    def run(self, way: str, given: Sequence[Batch], **options: Any) -> Course:
        """Return the result of `way`, which is `fit` or `loop`."""
        return self.observed(self.make(**options), way, given)

    def observed(self, model: Any, way: str, given: Sequence[Batch]) -> Course:
        """Train a model and record it after each batch."""
        seen: list[Any] = []
        train: Callable[..., None] = getattr(self.strategy, way)
        train(model, given, lambda model: seen.append(self.look_at(model)))
        weights, norms, overwritten = zip(*seen, strict=True)
        clipping, sgd, scale = self.optimizers(model)
        return Course(
            list(weights),
            list(norms),
            self.velocity(model, sgd),
            int(keras.ops.convert_to_numpy(sgd.iterations)),
            int(clipping.skipped_steps.numpy()) if clipping else 0,
            scale,
            list(overwritten),
        )

    def look_at(self, model: Any) -> tuple[np.ndarray, float, np.ndarray]:
        """Record weights, the norm, and variables that Keras sets to the gradient itself."""
        clipping, _, _ = self.optimizers(model)
        norm = float(clipping.grad_norm.numpy()) if clipping else 0.0
        return self.weights(model, False), norm, self.weights(model, True)

    def weights(self, model: Any, overwritten: bool) -> np.ndarray:
        chosen = [v for v in model.trainable_variables if is_overwritten(v) == overwritten]
        arrays = [self.strategy.array(variable) for variable in chosen]
        return flat(arrays) if arrays else np.zeros(0)

    def velocity(self, model: Any, sgd: Any) -> np.ndarray:
        if not self.strategy.momentum:
            return np.zeros(0)
        pairs = zip(model.trainable_variables, sgd.momentums, strict=True)
        return flat([momentum.numpy() for v, momentum in pairs if not is_overwritten(v)])

    def optimizers(self, model: Any) -> tuple[Any, Any, float | None]:
        """Return the wrapper, if any, the innermost optimizer, and the scale of the loss."""
        optimizer, scale = model.optimizer, None
        if isinstance(optimizer, LossScale):
            scale = float(optimizer.dynamic_scale.numpy())
            optimizer = optimizer.inner_optimizer
        if isinstance(optimizer, ClippedOptimizer):
            return optimizer, optimizer.inner_optimizer, scale
        return None, optimizer, scale

    def state(self, model: Any) -> dict[str, np.ndarray]:
        """All variables of model and optimizer, by path: a loaded model may have another order."""
        of_model = {name(v): self.strategy.array(v) for v in model.variables}
        return of_model | {name(v): np.array(v.numpy()) for v in model.optimizer.variables}

    def resumed(self, way: str, given: Sequence[Batch], stop: int, **options: Any) -> Any:
        """Return a model that was saved after `stop` batches and loaded before the next."""

        def make() -> Any:
            return self.make(**options)

        model = make()
        self.observed(model, way, given[:stop])
        with tempfile.TemporaryDirectory() as folder:
            model = self.strategy.resumed(model, make, Path(folder))
        self.observed(model, way, given[stop:])
        return model


def name(variable: Any) -> str:
    """Return its path without counts and the model's name, which a loaded model lacks."""
    return re.sub(r"network[/_]|_\d+(?=/|$)", "", variable.path)


def is_overwritten(variable: Any) -> bool:
    """Whether Keras sets the variable to its gradient, as the scales of float8."""
    return getattr(variable, "overwrite_with_gradient", False)
