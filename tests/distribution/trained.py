"""Training runs in a form for JSON, and their comparison."""

from typing import Any

import keras
import numpy as np

import keras_clip
from keras_clip import ObserveOnly

# 50 batches of 8, of which each device gets one row.
BATCH, STEPS = 8, 50


@keras.saving.register_keras_serializable("tests")
class Counted(ObserveOnly):
    """Clips, and counts the updates it changed."""

    def clip(self, update):
        return self.noted(update)


EVERY_CLIPPER = {
    "ClipByGlobalNorm": lambda: keras_clip.ClipByGlobalNorm(0.5),
    "ClipByGlobalNorm largest": lambda: keras_clip.ClipByGlobalNorm(0.2, norm_type=float("inf")),
    "ClipByNorm": lambda: keras_clip.ClipByNorm(0.3),
    "ClipByValue": lambda: keras_clip.ClipByValue(0.1),
    "ClipByBlockRMS": lambda: keras_clip.ClipByBlockRMS(0.05),
    "AdaptiveGradientClipping": lambda: keras_clip.AdaptiveGradientClipping(0.05),
    "AutoClip": lambda: keras_clip.AutoClip(30.0, history_size=7),
    "ZClip": lambda: keras_clip.ZClip(z_thresh=0.1, max_grad_norm=2.0, warmup_steps=3),
    "AdaGC": lambda: keras_clip.AdaGC(start_clip_steps=4),
}


def data(samples: int = BATCH * STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs with a scale for each row, so that no two devices see the same."""
    generator = np.random.default_rng(7)
    scale = np.resize(np.linspace(0.2, 3.0, BATCH), samples)[:, None]
    inputs = generator.normal(size=(samples, 4)) * scale
    targets = np.tanh(inputs).sum(axis=1, keepdims=True) * 3.0
    return inputs.astype("float32"), targets.astype("float32")


def make_model(optimizer: Any = None) -> Any:
    """Layers whose units four devices can share."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="output"),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer=optimizer, loss="mse")
    return model


def summary(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return weights, the wrapper's own state, and counts of its actions."""
    clipper = optimizer.clipper
    counted = isinstance(clipper, Counted)
    return {
        "weights": _flat(model.trainable_variables),
        "state": _flat([*clipper.variables, optimizer.grad_norm]),
        "clipped": int(clipper.clipped_updates.numpy()) if counted else None,
        "updates": int(keras.ops.convert_to_numpy(optimizer.iterations)),
        "skipped": int(optimizer.skipped_steps.numpy()),
    }


def _flat(variables: Any) -> list[float]:
    arrays = [np.ravel(keras.ops.convert_to_numpy(v.value)).astype("float64") for v in variables]
    return np.concatenate(arrays).tolist()


def difference(one: list[float], other: list[float]) -> float:
    """Norm of the difference, relative to the norm; infinite entries in the same places."""
    first, second = np.array(one), np.array(other)
    finite = np.isfinite(second)
    if not np.array_equal(first[~finite], second[~finite]):
        return float("inf")
    return float(np.linalg.norm((first - second)[finite]) / np.linalg.norm(second[finite]))


def too_different(run: dict[str, Any], reference: dict[str, Any], rtol: float) -> dict[str, Any]:
    """Return the differences of a run from its reference, and its counts if it clips too rarely."""
    found: dict[str, Any] = {
        key: difference(run[key], reference[key])
        for key in ("weights", "state")
        if not difference(run[key], reference[key]) <= rtol
    }
    counts = {key: (run[key], reference[key]) for key in ("clipped", "updates", "skipped")}
    found |= {key: both for key, both in counts.items() if both[0] != both[1]}
    if run["clipped"] is not None and run["clipped"] < run["updates"] / 2:
        found["clips too rarely"] = (run["clipped"], run["updates"])
    return found
