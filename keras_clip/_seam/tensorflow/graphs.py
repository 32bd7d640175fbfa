"""The ways in which TensorFlow runs a function: eagerly, in a graph, or compiled by XLA."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled_if_eager(
    function: Callable[..., Any], compiled: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the one of the two functions that keeps `tf.cond` on the device."""
    return compiled if tf.executing_eagerly() else function


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as a graph: outside one, `tf.cond` reads its predicate on the host."""
    graph: Any = tf.function(function, reduce_retracing=True, autograph=False)
    # Each model has its own gradients and its own trace, which is not worth a warning.
    graph._omit_frequent_tracing_warning = True
    traced_function: Callable[..., Any] = graph
    return traced_function


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Trace `function` if it is called outside a graph."""
    graph = traced(function)

    def run(*arguments: Any) -> Any:
        return compiled_if_eager(function, graph)(*arguments)

    return run


def is_compiled_by_xla() -> bool:
    """Return whether this code is traced for `jit_compile=True`."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        if context is not None and context.IsXLAContext():
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def has_accelerator() -> bool:
    """Return whether TensorFlow sees a device besides the CPU."""
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
