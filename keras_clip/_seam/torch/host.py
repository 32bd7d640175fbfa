"""Reads of tensors on the host, and copies of numbers to a device."""

from typing import Any

import torch

from keras_clip.types import Tensor


def can_read(tensor: Tensor) -> bool:
    """Return whether a Python `if` on a value costs nothing.

    On the CPU torch has computed the value by the time the call returns. On any other
    device reading it would stop the queue, and inside `torch.compile` split the graph.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def on(device: torch.device, tensor: Tensor) -> Tensor:
    """Move to `device`."""
    # Even a `to` that does nothing takes a microsecond for each variable.
    return tensor if tensor.device == device else tensor.to(device)


def constant(array: Any, like: Tensor) -> Tensor:
    """Return a NumPy array as a tensor on the device of `like`, without waiting for it."""
    tensor = torch.from_numpy(array)
    if like.device.type != "cuda" or torch.compiler.is_compiling():
        return tensor.to(like.device)
    # A copy from pageable memory would wait until the queue is empty.
    return tensor.pin_memory().to(like.device, non_blocking=True)
