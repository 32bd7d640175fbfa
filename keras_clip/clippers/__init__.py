"""How to clip: one class a file."""

from keras_clip.clippers.chain import Chain
from keras_clip.clippers.clip_by_block_rms import ClipByBlockRMS
from keras_clip.clippers.clip_by_global_norm import ClipByGlobalNorm
from keras_clip.clippers.clip_by_norm import ClipByNorm
from keras_clip.clippers.clip_by_value import ClipByValue
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.clipper_map import ClipperMap
from keras_clip.clippers.observe_only import ObserveOnly
from keras_clip.clippers.registry import deserialize, get, serialize
from keras_clip.clippers.update import Update

__all__ = [
    "Chain",
    "ClipByBlockRMS",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "Clipper",
    "ClipperMap",
    "ObserveOnly",
    "Update",
    "deserialize",
    "get",
    "serialize",
]
