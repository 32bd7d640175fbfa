"""What the demo needs around it: a backend, scikit-learn and matplotlib."""

import importlib
import os

from keras_clip.demo.options import BadValue

_BACKENDS = ("tensorflow", "jax", "torch")


def prepare() -> None:
    """Import what the demo needs, with the frameworks' own messages silenced.

    Raises:
        BadValue: something is missing, or Keras is set to another backend.
    """
    # Frameworks read these when they are first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # On some processors TensorFlow takes other kernels, whose results differ in the last bits, and
    # says so whatever level is set.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # The demo's matrices are too small for a second thread to help torch, and on a busy
    # machine waiting for it was measured to make a run 8 times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Keras reads it as unset when it is empty.
    chosen = os.environ.get("KERAS_BACKEND") or None
    if chosen is not None:
        _check_backend(chosen)
    for module in ("matplotlib", "sklearn", "keras"):
        _import(module, chosen)
    import keras

    # Without the variable, Keras takes the backend from its configuration file.
    _check_backend(keras.config.backend())


def _check_backend(name: str) -> None:
    if name not in _BACKENDS:
        raise BadValue(
            f"environment variable KERAS_BACKEND: expected one of {', '.join(_BACKENDS)}, "
            f"received {name!r}."
        )


def _import(module: str, backend: str | None) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        missing = error.name or module
        extras = "demo"
        if module == "keras":
            # Keras is there with keras_clip; what it misses is its backend.
            extras = f"demo,{backend or _BACKENDS[0]}"
        raise BadValue(
            f'{missing} cannot be imported. Run: pip install "keras-clip[{extras}]"'
        ) from error
