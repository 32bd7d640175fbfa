"""Gradient clipping for Keras optimizers, right before the update."""

from keras_clip import clippers
from keras_clip.arithmetic import clip_by_global_norm, global_norm
from keras_clip.clippers import ClipByGlobalNorm, Clipper, Update
from keras_clip.optimizer import ClippedOptimizer

__all__ = [
    "ClipByGlobalNorm",
    "ClippedOptimizer",
    "Clipper",
    "Update",
    "clip_by_global_norm",
    "clippers",
    "global_norm",
]

__version__ = "0.1.0"
