"""Checks of the norms: NaN, zero, growth, spikes."""

import numpy as np

from keras_clip.diagnosis.run import Finding, Run, longest_row, neighbourhoods, rise
from keras_clip.monitoring.clipping_summary import percent
from keras_clip.monitoring.offenders import nonfinite_variables

# A loss scale that grows every 2,000 updates overflows once in as many.
_OFTEN = 0.01
_LONG_ROW = 20
_MANY_ZEROS = 0.05
_GROWTH = 10.0
# A recurrent network that learns reaches 15 times its first norms.
_BURST = 30.0
# As `keras_clip.Outliers`: in the logarithm, because norms of a run that has learned nearly
# everything vary by large factors.
_SPIKE = 10.0
_DEVIATIONS = 6.0
# The median of the distances to the median is this part of a normal distribution's deviation.
_MEDIAN_DISTANCE = 0.6745
# A period is stated if as many spikes follow each other at one distance.
_FEWEST_RETURNS = 3


def nonfinite_applied(run: Run) -> Finding | None:
    """NaN or infinite gradients reached the weights."""
    rows = np.flatnonzero(run.is_applied & ~np.isfinite(run.norms))
    if not rows.size:
        return None
    first = int(rows[0])
    text = f"Update {run.step(first)} was applied with a norm of {run.norms[first]}."
    if rows.size > 1 and not np.isfinite(run.norms[first:]).any() and run.is_applied[first:].all():
        text += " So were all later ones: the weights are NaN or infinite since then."
    names = nonfinite_variables(run.variable_norms, since=0) if run.variable_norms else None
    if names is not None:
        text += f" {names}."
    return Finding(
        "nonfinite applied",
        text,
        'Set nonfinite="skip", or nonfinite="raise" to learn which variable it was. If it was no '
        "single batch, lower the learning rate.",
    )


def overflow_loop(run: Run) -> Finding | None:
    """All updates of a long stretch were skipped for NaN or infinity."""
    length, first = longest_row(_is_overflow(run))
    if length < _LONG_ROW:
        return None
    return Finding(
        "overflow loop",
        f"{length:,} updates in a row were skipped for a NaN or infinite norm, from "
        f"{run.step(first)} on. The weights, the data or the loss scale stay bad, so skipping does "
        "not help.",
        "Set max_consecutive_skips=20 to stop there, or use keras_clip.RollBack.",
    )


def frequent_overflows(run: Run) -> Finding | None:
    """Single updates are skipped for NaN or infinity, more often than a loss scale explains."""
    # A loss scale begins too high, and is halved until the first update is applied.
    bad = _is_overflow(run)[_first_applied(run) :]
    share = float(bad.mean()) if bad.size else 0.0
    if share <= _OFTEN or longest_row(bad)[0] >= _LONG_ROW:
        return None
    return Finding(
        "frequent overflows",
        f"{percent(share)} of the updates were skipped for a NaN or infinite norm.",
        "Look for bad batches or an operation that overflows. A loss scale that has settled causes "
        "fewer than one in 1,000.",
    )


def _first_applied(run: Run) -> int:
    return int(np.argmax(run.is_applied)) if run.is_applied.any() else run.norms.size


def _is_overflow(run: Run) -> np.ndarray:
    overflow: np.ndarray = run.record["skipped"] & ~np.isfinite(run.norms)
    return overflow


def zero_gradients(run: Run) -> Finding | None:
    """Whole updates had no gradient."""
    zero = run.norms == 0
    if not zero.size or zero.mean() <= _MANY_ZEROS:
        return None
    return Finding(
        "zero gradients",
        f"{percent(float(zero.mean()))} of the updates had a gradient of 0, the first at "
        f"{run.step(int(np.argmax(zero)))}.",
        "Look for dead activations, a loss that does not depend on the weights, or an underflow in "
        "float16.",
    )


def growth(run: Run) -> Finding | None:
    """Norms rose far above those before: the run diverges."""
    norms = run.usable
    if norms.size < _LONG_ROW:
        return None
    tenths = [float(np.median(part)) for part in np.array_split(norms, 10)]
    low, high = min(tenths), tenths[-1]
    if high <= _GROWTH * low:
        low, high = rise(norms)
        # A single small norm at the start is no burst: then the others are as high.
        if high <= _BURST * low or high <= _GROWTH * np.median(norms):
            return None
    return Finding(
        "growing norms",
        f"The usual norm rose from {low:.2g} to {high:.2g}, {_times(high / low)}: the steps are "
        "too long.",
        "Lower the learning rate, or set max_update_ratio=0.003, which limits the step itself.",
    )


def spikes(run: Run) -> Finding | None:
    """Single norms far above their neighbours."""
    usable = np.flatnonzero(np.isfinite(run.norms) & (run.norms > 0))
    if usable.size < _LONG_ROW:
        return None
    heights = [_heights(part) for part in neighbourhoods(np.log(run.norms[usable]))]
    above, is_spike = (np.concatenate(parts) for parts in zip(*heights, strict=True))
    rows = usable[is_spike]
    if not rows.size:
        return None
    with np.errstate(over="ignore"):
        ratios = np.exp(above[is_spike])
    largest = int(rows[np.argmax(ratios)])
    count = f"{rows.size:,} norms are" if rows.size > 1 else "One norm is"
    text = (
        f"{count} more than {_SPIKE:g} times the median around, the largest at "
        f"{run.step(largest)}: {_times(ratios.max())}."
    )
    period = _period(run.record["step"][rows])
    advice = "skip_above=keras_clip.Outliers() leaves such updates out; a low max_norm holds them."
    if period:
        text += f" They return every {period:,} updates."
        advice = f"Look at the batch that comes once in {period:,}. {advice}"
    return Finding("spikes", text + _causes(run, rows), advice)


def _heights(logarithms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each norm is above the median, and whether that is a spike."""
    above = logarithms - np.median(logarithms)
    deviation = np.median(np.abs(above)) / _MEDIAN_DISTANCE
    return above, above > max(np.log(_SPIKE), _DEVIATIONS * deviation)


def _period(steps: np.ndarray) -> int | None:
    distances = np.diff(steps)
    if distances.size < _FEWEST_RETURNS:
        return None
    common = int(np.median(distances))
    return common if common > 1 and np.mean(distances == common) > 0.5 else None


def _causes(run: Run, rows: np.ndarray) -> str:
    """Name the variables that carry the spikes."""
    if not run.variable_norms:
        return ""
    steps = run.variable_norms["step"]
    at_spikes = np.isin(steps, run.record["step"][rows])
    paths = [name for name in run.variable_norms if name != "step"]
    if not at_spikes.any():
        return ""
    largest = max(paths, key=lambda path: _largest(run.variable_norms[path][at_spikes]))
    return f" The largest norm there is that of {largest}."


def _largest(norms: np.ndarray) -> float:
    finite = norms[np.isfinite(norms)]
    return float(finite.max()) if finite.size else 0.0


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio < 1e6 else f"{ratio:.1g} times"
