"""Gradient clipping for Keras optimizers, right before the update."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Importing the classes that Keras saves registers them for `load_model`.
from keras_clip import clippers
from keras_clip.adoption import Adoption, adopt
from keras_clip.arguments.thresholds import Threshold
from keras_clip.clippers import (
    AdaGC,
    AdaptiveGradientClipping,
    AutoClip,
    Chain,
    ClipByBlockRMS,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    Clipped,
    Clipper,
    ClipperMap,
    ObserveOnly,
    Update,
    ZClip,
)
from keras_clip.norms.global_norm import clip_by_global_norm, global_norm
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.skipping.errors import NonFiniteGradientError, TooManySkipsError
from keras_clip.skipping.outliers import Outliers
from keras_clip.weights.update_clipping import UpdateClipping
from keras_clip.weights.weight_clipping import WeightClipping

__version__ = "0.1.0"

if TYPE_CHECKING:
    from keras_clip.diagnosis.diagnose import Diagnosis, diagnose
    from keras_clip.diagnosis.run import Finding
    from keras_clip.monitoring.batch_keeper import BatchKeeper
    from keras_clip.monitoring.clip_monitor import ClipMonitor
    from keras_clip.monitoring.plot_clipping import plot_clipping
    from keras_clip.monitoring.plot_variables import plot_variables
    from keras_clip.monitoring.raise_on_nonfinite import RaiseOnNonFinite
    from keras_clip.monitoring.suggest_max_norm import Suggestion, suggest_max_norm
    from keras_clip.recovery.guarded_run import TooManyRollBacksError
    from keras_clip.recovery.roll_back import RollBack

# Imported at first use: training alone does not need them.
_LATE = {
    "BatchKeeper": "monitoring.batch_keeper",
    "ClipMonitor": "monitoring.clip_monitor",
    "Diagnosis": "diagnosis.diagnose",
    "Finding": "diagnosis.run",
    "RaiseOnNonFinite": "monitoring.raise_on_nonfinite",
    "RollBack": "recovery.roll_back",
    "Suggestion": "monitoring.suggest_max_norm",
    "TooManyRollBacksError": "recovery.guarded_run",
    "diagnose": "diagnosis.diagnose",
    "plot_clipping": "monitoring.plot_clipping",
    "plot_variables": "monitoring.plot_variables",
    "suggest_max_norm": "monitoring.suggest_max_norm",
}

__all__ = [
    "AdaGC",
    "AdaptiveGradientClipping",
    "Adoption",
    "AutoClip",
    "BatchKeeper",
    "Chain",
    "ClipByBlockRMS",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "ClipMonitor",
    "Clipped",
    "ClippedOptimizer",
    "Clipper",
    "ClipperMap",
    "Diagnosis",
    "Finding",
    "NonFiniteGradientError",
    "ObserveOnly",
    "Outliers",
    "RaiseOnNonFinite",
    "RollBack",
    "Suggestion",
    "Threshold",
    "TooManyRollBacksError",
    "TooManySkipsError",
    "Update",
    "UpdateClipping",
    "WeightClipping",
    "ZClip",
    "adopt",
    "clip_by_global_norm",
    "clippers",
    "diagnose",
    "global_norm",
    "plot_clipping",
    "plot_variables",
    "suggest_max_norm",
]


if not TYPE_CHECKING:  # With `__getattr__`, a type checker would accept every name.

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
