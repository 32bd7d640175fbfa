"""The clippers, one in each file."""

from keras_clip.clippers.ada_gc import AdaGC
from keras_clip.clippers.adaptive_gradient_clipping import AdaptiveGradientClipping
from keras_clip.clippers.auto_clip import AutoClip
from keras_clip.clippers.chain import Chain
from keras_clip.clippers.clip_by_block_rms import ClipByBlockRMS
from keras_clip.clippers.clip_by_global_norm import ClipByGlobalNorm
from keras_clip.clippers.clip_by_norm import ClipByNorm
from keras_clip.clippers.clip_by_value import ClipByValue
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.clipper_map import ClipperMap
from keras_clip.clippers.observe_only import ObserveOnly
from keras_clip.clippers.registry import deserialize, get, serialize
from keras_clip.clippers.update import Update
from keras_clip.clippers.z_clip import ZClip

__all__ = [
    "AdaGC",
    "AdaptiveGradientClipping",
    "AutoClip",
    "Chain",
    "ClipByBlockRMS",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "Clipped",
    "Clipper",
    "ClipperMap",
    "ObserveOnly",
    "Update",
    "ZClip",
    "deserialize",
    "get",
    "serialize",
]
