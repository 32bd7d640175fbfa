"""Numbers that the host knows, as tensors of the backend."""

from typing import Any

from keras import ops

from keras_clip._seam import backend
from keras_clip.types import Tensor


def constant(array: Any, like: Tensor) -> Tensor:
    """Return a NumPy array as a tensor on the device of `like`.

    Only where a copy stops the host, on torch, is there more to it; elsewhere a step is one
    compiled program and the array a part of it.
    """
    if not hasattr(backend, "constant"):
        return ops.convert_to_tensor(array)
    copied: Tensor = backend.constant(array, like)
    return copied
