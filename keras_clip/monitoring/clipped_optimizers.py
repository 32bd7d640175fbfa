"""Find the wrappers in the optimizer of a model."""

from typing import Any

import keras

from keras_clip._seam.multi_optimizer import members_of
from keras_clip.optimizer import ClippedOptimizer


def clipped_optimizers(optimizer: Any) -> list[ClippedOptimizer]:
    """Return the wrappers in `optimizer`: itself, inside a loss scale, or among its members."""
    if isinstance(optimizer, ClippedOptimizer):
        return [optimizer]
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return clipped_optimizers(optimizer.inner_optimizer)
    return [wrapper for member in members_of(optimizer) for wrapper in clipped_optimizers(member)]
