"""The threshold that a record suggests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_clip.monitoring.as_record import as_record
from keras_clip.monitoring.clipping_summary import (
    ClippingSummary,
    finite_norms,
    percent,
    percentiles,
    summarize,
)

FEWEST_UPDATES = 20
"""Updates with a finite norm above 0 below which no threshold is suggested."""

# Number of updates whose median is the usual norm around an update.
_NEIGHBOURS = 50
# In six failing runs of the demo's network the tail was 3.0 to 6.4. For log-normal norms as uneven
# as those of small batches (spread 0.3) it is 2.
_LONGEST_CALM_TAIL = 3.0
_LEAST_FACTOR = 0.5
_TENFOLD = 10.0
_MOSTLY = 0.5


@dataclass(frozen=True)
class Suggestion:
    """A threshold for the global norm, and the reasons for it.

    `print(suggestion)` shows all of it as a short table.

    Args:
        max_norm: float, the threshold.
        reason: str, one sentence.
        percentiles: dict of percent to float, the norms before clipping of applied updates with a
            finite norm.
        clipped_fraction: dict of threshold to the share, from 0 to 1, of these updates that it
            would have clipped: for `max_norm` and for the percentiles, to two digits.
        current_clipped_fraction: share of the applied updates that were clipped in the recorded
            run, or None if unknown.
        warning: str, the problem of the threshold in use, or None. Defaults to None.

    Raises:
        FrozenInstanceError: an attribute is assigned.

    Example:
        >>> import keras_clip
        >>> suggestion = keras_clip.suggest_max_norm({"grad_norm": [1.0, 1.2] * 50})
        >>> suggestion.max_norm, suggestion.percentiles[50]
        (1.2, 1.1)
    """

    max_norm: float
    reason: str
    percentiles: Mapping[int, float]
    clipped_fraction: Mapping[float, float]
    current_clipped_fraction: float | None
    warning: str | None = None

    def __str__(self) -> str:
        lines = [f"Suggested: max_norm={self.max_norm:g}", self.reason, ""]
        width = max(len("max_norm"), *(len(f"{norm:g}") for norm in self.clipped_fraction))
        lines.append(f"{'max_norm':>{width}}   would have clipped of these updates")
        for norm, share in sorted(self.clipped_fraction.items()):
            mark = "  <- suggested" if norm == self.max_norm else ""
            lines.append(f"{norm:>{width}g}   {percent(share)}{mark}")
        if self.warning:
            lines += ["", f"Warning: {self.warning}"]
        return "\n".join(lines)


def suggest_max_norm(record: Any) -> Suggestion:
    """Suggest a threshold for the global norm, from the norms of a run.

    `max_norm = min(percentile(n, 90), factor * median(n))`, where
    `factor = max(1/2, (3 / tail)^2)` and `tail = percentile(n_t / local median, 99)`

    rounded to two digits. `n` are the norms before clipping of the applied updates, in order,
    without zeros, NaN, infinity, and updates that `RollBack` took back. The local median is over
    about 50 updates around `n_t`, so norms that fall slowly from a high start make no tail.

    - Calm norms get a safety net that most updates never touch: the 90th percentile.
    - If some norms are many times their neighbours, that percentile lies within the explosion
      and would not help. The threshold then falls to half the median and limits each step.
    - If the median of the second half is more than 10 times that of the first, the run diverged,
      and `n` is the first half alone.

    Record with `max_norm=float("inf")`, which clips nothing. A clipped run has followed another
    path, and `reason` then says so. A threshold from a failed run is a starting point: if
    training still fails, halve it, or lower the learning rate.

    Args:
        record: a `ClipMonitor`, a `ClippedOptimizer`, the `History` that `model.fit` returned, a
            record, or the path of its CSV file. A record is any mapping with a column
            `grad_norm`, such as a dict or a DataFrame. The columns `skipped`, `rolled_back`,
            `clip_scale` and `clip_threshold` are optional.

    Returns:
        A `Suggestion`. Its `warning` says if more than half of the updates were clipped.

    Raises:
        TypeError: `record` is something else.
        ValueError: it has fewer than 20 updates with a finite norm above 0, no column
            `grad_norm`, or a model with several wrappers; or the file is not a record.

    Reference:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, section 3.2: from half to ten times the
        average norm over many updates; `factor` is from 1/2 to 9. The median replaces the
        average, which a few exploded norms would dominate. Seetharaman et al. 2020, arXiv
        2007.14469, for percentiles of past norms as thresholds; they use the 10th.

    Example:
        >>> import numpy as np
        >>> from keras_clip import suggest_max_norm
        >>> norms = np.random.default_rng(0).lognormal(0.0, 0.3, size=1000)
        >>> suggest_max_norm({"grad_norm": norms}).max_norm
        1.4
        >>> exploding = norms * np.where(np.arange(1000) % 20 == 0, 1e6, 1.0)
        >>> suggest_max_norm({"grad_norm": exploding}).max_norm
        0.5
    """
    recorded = as_record(record)
    kept = ~recorded["rolled_back"]
    rolled_back = int((~kept).sum())
    columns = {name: column[kept] for name, column in recorded.items()}
    summary = summarize(columns)
    norms = finite_norms(columns)
    usable = norms[norms > 0]
    if usable.size < FEWEST_UPDATES:
        raise ValueError(_too_few(usable.size, norms.size, summary, rolled_back))
    max_norm, why = _choose(usable)
    fractions = _clipped_fractions(norms, max_norm)
    notes = [
        f"{why}; it would have clipped {percent(fractions[max_norm])} of these updates",
        *_left_out(norms, summary, rolled_back),
        *_about_clipping(summary),
    ]
    return Suggestion(
        max_norm=max_norm,
        reason="; ".join(notes) + ".",
        percentiles=percentiles(norms),
        clipped_fraction=fractions,
        current_clipped_fraction=summary.clipped_fraction,
        warning=_warning(summary, max_norm),
    )


def _choose(norms: np.ndarray) -> tuple[float, str]:
    before = norms[: norms.size // 2]
    went_astray = np.median(norms[norms.size // 2 :]) > _TENFOLD * np.median(before)
    chosen = before if went_astray else norms
    of = f"{chosen.size:,} norms"
    if went_astray:
        of += " of the first half, after which norms grew more than tenfold"
    median = float(np.median(chosen))
    percentile = float(np.percentile(chosen, 90))
    tail = _tail(chosen)
    factor = max(_LEAST_FACTOR, (_LONGEST_CALM_TAIL / tail) ** 2)
    if percentile <= factor * median:
        return _two_digits(percentile), f"The 90th percentile of {of}, a safety net"
    times = "Half" if factor == _LEAST_FACTOR else f"{factor:.2g} times"
    because = f"one in a hundred is more than {tail:.2g} times as long as those around it"
    if tail <= _LONGEST_CALM_TAIL:
        because = "that is of a part of the run whose norms are far above the others"
    return _two_digits(factor * median), (
        f"{times} the median of {of}, not their 90th percentile of {percentile:.2g}, as {because}"
    )


def _tail(norms: np.ndarray) -> float:
    """Return the 99th percentile of the norms in units of the median around each."""
    groups = np.array_split(norms, max(1, norms.size // _NEIGHBOURS))
    with np.errstate(over="ignore"):
        ratios = np.concatenate([group / np.median(group) for group in groups])
    return float(np.percentile(ratios, 99, method="lower"))


def _two_digits(value: float) -> float:
    rounded = float(f"{value:.2g}")
    return rounded if 0 < rounded < math.inf else value


def _clipped_fractions(norms: np.ndarray, max_norm: float) -> dict[float, float]:
    candidates = {_two_digits(norm) for norm in percentiles(norms).values()} | {max_norm}
    return {norm: float(np.mean(norms > norm)) for norm in sorted(candidates) if norm > 0}


def _left_out(norms: np.ndarray, summary: ClippingSummary, rolled_back: int) -> list[str]:
    counts = {
        "rolled back": rolled_back,
        "skipped": summary.skipped,
        "NaN or infinite": summary.applied - norms.size,
        "of norm 0": int((norms == 0).sum()),
    }
    said = [f"{count:,} {what}" for what, count in counts.items() if count]
    return [f"left out: {', '.join(said)}"] if said else []


def _about_clipping(summary: ClippingSummary) -> list[str]:
    if not summary.clipped:
        return []
    return [
        f"{percent(summary.clipped_fraction or 0)} of the recorded updates were clipped, and "
        "without that the norms after them would have been others"
    ]


def _warning(summary: ClippingSummary, max_norm: float) -> str | None:
    if (summary.clipped_fraction or 0) <= _MOSTLY:
        return None
    threshold = summary.latest_threshold
    in_force = "The clipper" if threshold is None else f"The threshold in force, {threshold:.3g},"
    text = (
        f"{in_force} clipped {percent(summary.clipped_fraction or 0)} of the updates: it sets the "
        "length of nearly every step rather than being a safety net. That is well where training "
        "goes well"
    )
    if threshold is not None and max_norm > threshold > 0:
        text += (
            f"; with max_norm={max_norm:g} steps of SGD are up to {max_norm / threshold:.2g} times "
            "as long, so lower the learning rate along with it"
        )
    return f"{text}."


def _too_few(usable: int, finite: int, summary: ClippingSummary, rolled_back: int) -> str:
    text = (
        f"A threshold needs the norms of at least {FEWEST_UPDATES} updates that were applied, "
        f"finite and above 0. Received {usable} of {summary.updates:,}"
    )
    if finite > usable:
        text += (
            f", and {finite - usable:,} that are 0: look for what keeps gradients from the model"
        )
    if rolled_back:
        text += f", without {rolled_back:,} that were rolled back"
    if summary.nonfinite:
        text += f", and {summary.nonfinite:,} that are NaN or infinite: lower the learning rate"
    return f"{text}. Observe a longer run, with max_norm=float('inf')."
