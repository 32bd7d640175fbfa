"""Run a clipper without using its result."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.clippers.clipped import Clipped, as_clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.registry import deserialize, get_member, serialize
from keras_clip.clippers.update import Update
from keras_clip.norms.global_norm import norm_of_tensors
from keras_clip.types import Gradient, Tensor, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class ObserveOnly(Clipper):
    """Run a clipper with its state, count its clips, and let gradients pass.

    `clipped = g`

    Training is bit-identical to training without a clipper. It costs as much as the clipper,
    plus one norm. Three scalar variables can be read at any time:

    - `updates`: number of updates seen.
    - `clipped_updates`: number of updates that the clipper would have changed.
    - `clipped_norm`: global norm of the latest update after the clipper.

    Args:
        clipper: a `Clipper`, its name or its config. Its variables, such as an adaptive
            `threshold`, are on `optimizer.clipper.clipper`.

    Raises:
        TypeError: `clipper` is not a clipper.

    Example:
        >>> import keras, numpy as np, keras_clip
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> observer = keras_clip.ObserveOnly(keras_clip.ClipByGlobalNorm(1.0))
        >>> model.compile(keras_clip.ClippedOptimizer("sgd", clipper=observer), loss="mse")
        >>> history = model.fit(np.ones((8, 4)), np.full((8, 1), 100.0), verbose=0)
        >>> int(observer.clipped_updates.numpy()), int(observer.updates.numpy())
        (1, 1)
    """

    def __init__(self, clipper: Any) -> None:
        self.clipper = get_member(clipper, "ObserveOnly")

    @property
    def members(self) -> Sequence[Clipper]:
        """The observed clipper."""
        return (self.clipper,)

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the counters, and build the clipper."""
        self.updates = self.add_variable((), dtype="int32", name="updates")
        self.clipped_updates = self.add_variable((), dtype="int32", name="clipped_updates")
        self.clipped_norm = self.add_variable((), name="clipped_norm")
        self.build_member(self.clipper, "observed", variables)

    def clip(self, update: Update) -> Clipped:
        """Run the clipper, count its clips, and return the gradients unchanged."""
        clipped = self.noted(update)
        return Clipped(update.gradients, clipped.threshold, update.global_norm)

    def noted(self, update: Update) -> Clipped:
        """Run the clipper, count the update and a change, and return the clipper's result."""
        clipped = as_clipped(self.clipper.clip(update))
        self.updates.assign(self.updates.value + 1)
        changed = ops.cast(_any_differs(update.gradients, clipped.gradients), "int32")
        self.clipped_updates.assign(self.clipped_updates + changed)
        self.clipped_norm.assign(norm_of_tensors(clipped.gradients))
        return clipped

    @property
    def has_running_threshold(self) -> bool:
        """Whether the clipper has a running threshold."""
        return self.clipper.has_running_threshold

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return that of the clipper."""
        return self.clipper.running_threshold(update)

    def get_config(self) -> dict[str, Any]:
        """Return the config of the clipper."""
        return {"clipper": serialize(self.clipper)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the observer that `get_config` described."""
        return cls(deserialize(config["clipper"]))


def _any_differs(gradients: Sequence[Gradient], clipped: Sequence[Gradient]) -> Tensor:
    pairs = zip(gradients, clipped, strict=True)
    return ops.any(
        ops.stack([ops.any(backend.values(one) != backend.values(other)) for one, other in pairs])
    )
