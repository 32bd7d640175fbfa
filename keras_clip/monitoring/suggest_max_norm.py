"""Which threshold a record speaks for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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

# How far around an update its usual norm is looked for.
_NEIGHBOURS = 50
# Of six runs of the demo's network at learning rates at which it fails, the tail was 3.0 to 6.4;
# of log-normal norms as uneven as those of small batches (spread 0.3) it is 2.
_LONGEST_CALM_TAIL = 3.0
_LEAST_FACTOR = 0.5
_TENFOLD = 10.0
_MOSTLY = 0.5


@dataclass(frozen=True)
class Suggestion:
    """A threshold for the global norm, and what speaks for it.

    `print(suggestion)` shows all of it as a short table.

    Args:
        max_norm: float, the threshold.
        reason: str, the sentence that says why.
        percentiles: dict of percent to float, the norms before clipping: of updates that were
            applied and had a finite norm.
        clipped_fraction: dict of threshold to the share, from 0 to 1, of these updates it
            would have clipped: for `max_norm` and for the percentiles, to two digits.
        current_clipped_fraction: share of the applied updates that was clipped in the run that
            was recorded, or None if the record does not tell.
        warning: str, what is wrong with the threshold in force, or None. Defaults to None.

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
    percentiles: Mapping[int, float] = field(repr=False)
    clipped_fraction: Mapping[float, float] = field(repr=False)
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

    rounded to two digits. `n` are the norms before clipping of the updates that were applied, in
    order, without zeros, NaN and infinity; the local median is that of about 50 updates
    around `n_t`, so that norms which fall slowly from a high beginning make no tail. Calm norms
    get a safety net, which most updates never touch: the 90th percentile. Where some norms are
    many times longer than their neighbours that percentile lies within the explosion and would
    mend nothing; there the threshold comes down to half the median, and limits each step. If
    the median of the second half is more than 10 times that of the first, the run went
    astray, and `n` is the first half alone.

    Record with `max_norm=float("inf")`, which clips nothing: norms of a run that was clipped are
    those along another path, and `reason` says so. A threshold found from a run that failed is
    a beginning: if training still fails, halve it, or lower the learning rate.

    Args:
        record: `ClipMonitor`, `ClippedOptimizer`, what `model.fit` returned, a record (any
            mapping with a column `grad_norm`, a DataFrame too; `skipped`, `clip_scale` and
            `clip_threshold` are used if they are there), or the path of a CSV file of one.

    Returns:
        A `Suggestion`. Its `warning` says if more than half of the updates were clipped.

    Raises:
        TypeError: `record` is something else.
        ValueError: it has fewer than 20 updates with a finite norm above 0, no column
            `grad_norm`, or is of a model with several wrappers; or the file is no record.

    Reference:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, section 3.2: from half to ten times the
        average norm over many updates; `factor` is from 1/2 to 9. The median takes the place
        of the average, which a few exploded norms would carry away. Seetharaman et al. 2020,
        arXiv 2007.14469, for percentiles of the norms seen as thresholds; theirs is the 10th.

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
    columns = as_record(record)
    summary = summarize(columns)
    norms = finite_norms(columns)
    usable = norms[norms > 0]
    if usable.size < FEWEST_UPDATES:
        raise ValueError(_too_few(usable.size, norms.size, summary))
    max_norm, why = _choose(usable)
    fractions = _clipped_fractions(norms, max_norm)
    notes = [
        f"{why}; it would have clipped {percent(fractions[max_norm])} of these updates",
        *_left_out(norms, summary),
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


def _left_out(norms: np.ndarray, summary: ClippingSummary) -> list[str]:
    counts = {
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


def _too_few(usable: int, finite: int, summary: ClippingSummary) -> str:
    text = (
        f"A threshold needs the norms of at least {FEWEST_UPDATES} updates that were applied, "
        f"finite and above 0. Received {usable} of {summary.updates:,}"
    )
    if finite > usable:
        text += (
            f", and {finite - usable:,} that are 0: look for what keeps gradients from the model"
        )
    if summary.nonfinite:
        text += f", and {summary.nonfinite:,} that are NaN or infinite: lower the learning rate"
    return f"{text}. Observe a longer run, with max_norm=float('inf')."
