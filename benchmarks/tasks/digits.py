"""The data of tasks on scikit-learn's digits: 1,797 real images of 8 by 8 pixels."""

from typing import Any

from benchmarks.tasks.task import Data
from keras_clip.demo.data import CLASSES, load

BATCH_SIZE = 64
STEPS = 330  # 15 epochs
FAILURE = 0.2  # guessing reads 10%
__all__ = ["BATCH_SIZE", "CLASSES", "FAILURE", "STEPS", "digits"]


def digits(*shape: int) -> Data:
    """Return the digits, with each image in a shape of 64 entries."""
    found = load()

    def shaped(pixels: Any) -> Any:
        return pixels.reshape(-1, *shape)

    return Data(
        shaped(found.train_pixels),
        found.train_labels.astype("int32"),
        shaped(found.held_out_pixels),
        found.held_out_labels.astype("int32"),
    )
