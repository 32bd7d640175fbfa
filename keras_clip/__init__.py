"""Gradient clipping for Keras optimizers, right before the update."""

import sys
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# `python -m keras_clip` and `python -m keras_clip.demo` run this file before their own. The demo
# has to choose what the frameworks log before they load, and to tell in one line if one is
# missing; a report needs none of them. Both import what they need by themselves.
_runs = {name for option, name in pairwise(sys.orig_argv) if option[:1] + option[-1:] == "-m"}
if not (sys.argv[:1] == ["-m"] and _runs & {"keras_clip", "keras_clip.demo"}):
    from keras_clip import clippers
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
    from keras_clip.monitoring.raise_on_nonfinite import RaiseOnNonFinite
    from keras_clip.norms.global_norm import clip_by_global_norm, global_norm
    from keras_clip.optimizer import ClippedOptimizer
    from keras_clip.skipping.nonfinite import NonFiniteGradientError, TooManySkipsError
    from keras_clip.thresholds import Threshold
    from keras_clip.weights.weight_clipping import WeightClipping

if TYPE_CHECKING:
    from keras_clip.monitoring.clip_monitor import ClipMonitor
    from keras_clip.monitoring.plot_clipping import plot_clipping
    from keras_clip.monitoring.plot_variables import plot_variables
    from keras_clip.monitoring.suggest_max_norm import Suggestion, suggest_max_norm

# Who only trains does not wait for what looks at the training: imported when first asked for.
_LATE = {
    "ClipMonitor": "clip_monitor",
    "Suggestion": "suggest_max_norm",
    "plot_clipping": "plot_clipping",
    "plot_variables": "plot_variables",
    "suggest_max_norm": "suggest_max_norm",
}

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
    "Suggestion",
    "Threshold",
    "TooManySkipsError",
    "Update",
    "WeightClipping",
    "ZClip",
    "clip_by_global_norm",
    "clippers",
    "global_norm",
    "plot_clipping",
    "plot_variables",
    "suggest_max_norm",
]


if not TYPE_CHECKING:  # to a type checker every name would be known

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.monitoring.{_LATE[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
