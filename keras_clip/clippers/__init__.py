"""How to clip: one class a file."""

from keras_clip.clippers.ada_gc import AdaGC
from keras_clip.clippers.auto_clip import AutoClip
from keras_clip.clippers.clip_by_global_norm import ClipByGlobalNorm
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.clippers.z_clip import ZClip

__all__ = ["AdaGC", "AutoClip", "ClipByGlobalNorm", "Clipper", "Update", "ZClip"]
