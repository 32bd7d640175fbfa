"""One clipper that combines all clippers, so that one training run uses every one."""

from typing import Any

from keras_clip import (
    AdaGC,
    AdaptiveGradientClipping,
    AutoClip,
    ClipByBlockRMS,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ClipperMap,
    ObserveOnly,
    ZClip,
)


def whole_family() -> Any:
    """Clippers with state get the kernels, and clippers without state get the biases.

    Warm-ups are short and thresholds low, so that all have clipped within ten updates.
    """
    adaptive = [
        AutoClip(60.0, history_size=5),
        AutoClip(60.0, history_size=5, min_threshold=0.1, max_growth=1.5),
        ZClip(z_thresh=0.5, max_grad_norm=5.0, warmup_steps=3),
        AdaGC(start_clip_steps=4, max_norm=2.0),
        # Whole counts, so that a single norm beside its threshold would make runs differ.
        ObserveOnly(ClipByNorm(1e-4)),
    ]
    stateless = [
        AdaptiveGradientClipping(0.5),
        ClipByValue(0.5),
        ClipByNorm(0.4),
        ClipByBlockRMS(0.3),
        ClipByGlobalNorm(0.2),
    ]
    return ClipperMap(None, {".*kernel": adaptive, ".*bias": stateless})
