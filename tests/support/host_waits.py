"""Counts of calls that make the host wait for the device on torch."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

_READS = {"__bool__", "__float__", "__int__", "__index__", "item", "tolist", "cpu", "numpy"}
_COPIES = {"as_tensor", "tensor"}


def detectors() -> list[Any]:
    """Return context managers that yield a list, and add each wait inside to it.

    One counts calls, on any device. The other asks CUDA, and exists only with CUDA.
    """
    import torch

    return [waits_by_call, *([waits_on_cuda] if torch.cuda.is_available() else [])]


@contextlib.contextmanager
def waits_by_call() -> Iterator[list[str]]:
    """Calls that would wait if tensors were on an accelerator: reads, and copies of numbers."""
    import torch
    from torch.overrides import TorchFunctionMode

    found: list[str] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = getattr(func, "__name__", "")
            copies = name in _COPIES and not isinstance(args[0], torch.Tensor)
            if name == "where":
                copies = not all(isinstance(argument, torch.Tensor) for argument in args)
            if name in _READS or copies:
                found.append(name)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield found


@contextlib.contextmanager
def waits_on_cuda() -> Iterator[list[str]]:
    """Calls of CUDA that wait."""
    import torch

    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    messages = [str(warning.message) for warning in caught]
    found.extend(message for message in messages if "synchronizing CUDA operation" in message)
