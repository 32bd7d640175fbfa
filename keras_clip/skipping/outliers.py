"""The rule that skips an update whose norm or loss is an outlier among the latest ones."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import keras

from keras_clip.arguments.hyperparameters import check_count, check_finite
from keras_clip.arguments.thresholds import Threshold

# Norms of a full batch hardly vary. A smaller floor would skip updates of regular runs.
LEAST_DEVIATION = 0.1


@keras.saving.register_keras_serializable(package="keras_clip")
class Outliers:
    """Skip an update whose norm or loss is an outlier among those of the latest applied updates.

    `log(norm) > mean + multiple * max(deviation, 0.1)`, with the mean and the standard deviation
    of the logarithms of the latest `window` norms before clipping.
    `loss > mean + multiple * max(deviation, 0.1 * abs(mean))`, with those of the latest losses.

    Give it as `skip_above` of a `ClippedOptimizer`. It works with every clipper. It learns from
    applied updates only, and a norm of 0 teaches nothing. A NaN or infinite norm is always
    skipped, and so is a NaN or infinite loss that is compared. After `window` finite outliers in
    a row, the numbers have another scale: the rule forgets the window and starts again with
    `warm_up`. An applied update ends the row.

    The loss is the mean over the batches of an accumulation, and over TensorFlow's replicas. On
    TensorFlow and torch, `fit` shows it to the optimizer, unless that is inside a
    `LossScaleOptimizer` or a `MultiOptimizer`. On JAX `fit` does not, and the first step raises. A
    loop of your own gives it: `optimizer.apply(gradients, variables, loss=loss)`, or
    `stateless_apply(..., loss=loss)`. With torch's `DistributedDataParallel`, give the mean over
    the processes to each of them.

    Args:
        multiple: float above 0, number of standard deviations. Defaults to 6.0. At a deviation of
            0.1 the limit is 1.8 times the usual norm, at 0.5 it is 20 times.
        window: int of at least 2, number of norms to compare with, 4 bytes each. Defaults to 128.
        warm_up: int from 2 to `window`, number of applied updates before the first finite norm
            may be skipped. Defaults to `window // 2`, and at least 2.
        of: "norm", "loss" or "both", which numbers are compared. Defaults to "norm", which works
            on every backend.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of its bounds; at a step, the loss is compared and the
            step shows none.

    Reference:
        `SkipStepOptimizer` of OLMo-core, which Levanter and MaxText follow, has this multiple,
        window and warm-up. Deviations: it compares norms, not their logarithms. Norms of small
        models are skewed: without logarithms, 8 of 10,000 good updates are skipped. Its window
        includes the skipped norms, so the fifth spike of equal size is applied, and each spike
        hides smaller ones for a whole window. It has no floor, and looks at both by default.

    Example:
        >>> import keras, numpy as np, keras_clip
        >>> optimizer = keras_clip.ClippedOptimizer(
        ...     "sgd", skip_above=keras_clip.Outliers(window=16, warm_up=4)
        ... )
        >>> variable = keras.Variable([0.0])
        >>> for norm in (1.0, 1.1, 0.9, 1.0, 1000.0, 1.0):
        ...     optimizer.apply([keras.ops.convert_to_tensor([norm])], [variable])
        >>> int(optimizer.skipped_steps.numpy())
        1
    """

    def __init__(
        self,
        multiple: float = 6.0,
        window: int = 128,
        warm_up: int | None = None,
        *,
        of: Literal["norm", "loss", "both"] = "norm",
    ) -> None:
        self.multiple = check_finite("multiple", multiple)
        if self.multiple == 0:
            raise ValueError(f"multiple must be above 0. Received: multiple={multiple!r}.")
        self.window = check_count("window", window, minimum=2)
        chosen = max(2, self.window // 2) if warm_up is None else warm_up
        self.warm_up = check_count("warm_up", chosen, minimum=2)
        if self.warm_up > self.window:
            raise ValueError(
                "warm_up must be at most window, or the window never holds as many norms. "
                f"Received: warm_up={warm_up!r}, window={window!r}."
            )

        if of not in ("norm", "loss", "both"):
            raise ValueError(f"of must be 'norm', 'loss' or 'both'. Received: of={of!r}.")
        self.of = of

    @property
    def reads_norm(self) -> bool:
        """Whether norms are compared."""
        return self.of != "loss"

    @property
    def reads_loss(self) -> bool:
        """Whether losses are compared."""
        return self.of != "norm"

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "multiple": self.multiple,
            "window": self.window,
            "warm_up": self.warm_up,
            "of": self.of,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the rule that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"Outliers({arguments})"


class SkipAbove(Threshold):
    """The argument `skip_above`: a multiple of the clipper's threshold, or `Outliers`."""

    def __set__(self, optimizer: Any, value: Any) -> None:
        """Set a number, a function of the step, `Outliers` or None."""
        super().__set__(optimizer, value)

    def check(self, value: Any) -> Any:
        """Return `Outliers` unchanged, and any other value as `Threshold` does."""
        return value if isinstance(value, Outliers) else super().check(value)
