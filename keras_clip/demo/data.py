"""Real images as sequences: scikit-learn's bundled digits, one pixel a step."""

from dataclasses import dataclass
from typing import Any

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH_SIZE = 64
CLASSES = 10
# Full batches only: a smaller last batch would be compiled separately.
_TRAINING_IMAGES = 22 * BATCH_SIZE


@dataclass(frozen=True)
class Digits:
    """Digits to learn from and digits held out, as NumPy arrays.

    Attributes:
        train_pixels: float32 from 0 to 1, shape (images, 64, 1): row after row.
        train_labels: integers from 0 to 9, shape (images,).
        held_out_pixels: as `train_pixels`.
        held_out_labels: as `train_labels`.
    """

    train_pixels: Any
    train_labels: Any
    held_out_pixels: Any
    held_out_labels: Any


def load(training_images: int = _TRAINING_IMAGES) -> Digits:
    """Return the 1,797 digits, `training_images` of them to learn from.

    The split is the same in every run, so runs differ only by their seed.

    Args:
        training_images: a multiple of `BATCH_SIZE`.
    """
    images, labels = load_digits(return_X_y=True)
    # The pixels are counts from 0 to 16.
    pixels = (images / 16).astype("float32")[..., None]
    train_x, held_out_x, train_y, held_out_y = train_test_split(
        pixels, labels, train_size=training_images, random_state=0, stratify=labels
    )
    return Digits(train_x, train_y, held_out_x, held_out_y)
