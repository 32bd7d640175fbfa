"""How to clip: one class a file."""

from keras_clip.clippers.adaptive_gradient_clipping import AdaptiveGradientClipping
from keras_clip.clippers.clip_by_global_norm import ClipByGlobalNorm
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update

__all__ = ["AdaptiveGradientClipping", "ClipByGlobalNorm", "Clipper", "Update"]
