"""Checks of single variables, for runs with `ClipMonitor(per_variable=True)`."""

import numpy as np

from keras_clip.diagnosis.run import Finding, Run

_FEWEST = 5
_SHOWN = 3
_FAR_ABOVE = 100.0


def dead_variables(run: Run) -> Finding | None:
    """Variables that never had a gradient."""
    dead = [path for path, norms in _norms(run).items() if not np.nan_to_num(norms, nan=1.0).any()]
    if not dead:
        return None
    return Finding(
        "dead variables",
        f"No gradient ever reached {_listed(dead)}.",
        "Freeze them with trainable=False, or look for what cuts them off from the loss.",
    )


def one_variable(run: Run) -> Finding | None:
    """One variable is so large that the global norm is its norm alone."""
    finite = {path: norms[np.isfinite(norms)] for path, norms in _norms(run).items()}
    medians = {path: float(np.median(norms)) for path, norms in finite.items() if norms.size}
    if len(medians) < 3:
        return None
    order = sorted(medians, key=lambda path: -medians[path])
    largest, second = medians[order[0]], medians[order[1]]
    if largest <= _FAR_ABOVE * second or second == 0:
        return None
    return Finding(
        "one variable",
        f"The usual norm of {order[0]} is {largest / second:,.0f} times that of the next "
        "variable, so the global norm is its norm: a clip for its sake shortens all others.",
        "Give it its own threshold: clipper=keras_clip.ClipperMap(...). Or scale the layer's "
        "inputs.",
    )


def _norms(run: Run) -> dict[str, np.ndarray]:
    norms = {path: values for path, values in run.variable_norms.items() if path != "step"}
    return norms if norms and len(run.variable_norms["step"]) >= _FEWEST else {}


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
