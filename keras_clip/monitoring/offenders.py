"""Text about the variables with the largest or with NaN gradients."""

import numpy as np

from keras_clip.records.history import Record

_SHOWN = 5


def largest_norms(norms: Record) -> str:
    """List the variables with the largest finite norms, in decreasing order."""
    finite = {path: _finite(norms, path) for path in _paths(norms)}
    largest = {path: values.max() for path, values in finite.items() if len(values)}
    if not largest:
        return "No norms of single variables were recorded."
    order = sorted(largest, key=lambda path: -largest[path])[:_SHOWN]
    width = max(map(len, order))
    lines = [f"Largest gradient norms, {len(order)} of {len(finite)} variables:"]
    for path in order:
        step = norms["step"][np.argmax(norms[path] == largest[path])]
        median = np.median(finite[path])
        lines.append(f"  {path:<{width}}  {largest[path]:.3g} at step {step}, median {median:.3g}")
    return "\n".join(lines)


def nonfinite_variables(norms: Record, since: int) -> str | None:
    """Name the variables whose norm is NaN or infinite at the first such step from `since` on."""
    for row in np.flatnonzero(norms["step"] >= since):
        bad = [path for path in _paths(norms) if not np.isfinite(norms[path][row])]
        if bad:
            more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
            step = norms["step"][row]
            return f"Gradients NaN or infinite at step {step}: {', '.join(bad[:_SHOWN])}{more}"
    return None


def _paths(norms: Record) -> list[str]:
    return [name for name in norms if name != "step"]


def _finite(norms: Record, path: str) -> np.ndarray:
    return norms[path][np.isfinite(norms[path])]
