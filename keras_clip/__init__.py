"""Gradient clipping for Keras optimizers, right before the update."""

import sys

__version__ = "0.1.0"

# `python -m keras_clip.demo` runs this file before its own. The demo has to choose what the
# frameworks log before they load, and to tell in one line if one is missing; it imports what
# it needs by itself.
if not (sys.argv[:1] == ["-m"] and "keras_clip.demo" in sys.orig_argv):
    from keras_clip import clippers
    from keras_clip.arithmetic import clip_by_global_norm, global_norm
    from keras_clip.clippers import (
        AdaGC,
        AdaptiveGradientClipping,
        AutoClip,
        Chain,
        ClipByBlockRMS,
        ClipByGlobalNorm,
        ClipByNorm,
        ClipByValue,
        Clipper,
        ClipperMap,
        ObserveOnly,
        Update,
        ZClip,
    )
    from keras_clip.monitoring.clip_monitor import ClipMonitor
    from keras_clip.nonfinite import NonFiniteGradientError, TooManySkipsError
    from keras_clip.optimizer import ClippedOptimizer
    from keras_clip.raise_on_nonfinite import RaiseOnNonFinite
    from keras_clip.thresholds import Threshold
    from keras_clip.weight_clipping import WeightClipping

__all__ = [
    "AdaGC",
    "AdaptiveGradientClipping",
    "AutoClip",
    "Chain",
    "ClipByBlockRMS",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "ClipMonitor",
    "ClippedOptimizer",
    "Clipper",
    "ClipperMap",
    "NonFiniteGradientError",
    "ObserveOnly",
    "RaiseOnNonFinite",
    "Threshold",
    "TooManySkipsError",
    "Update",
    "WeightClipping",
    "ZClip",
    "clip_by_global_norm",
    "clippers",
    "global_norm",
]
