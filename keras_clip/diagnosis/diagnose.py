"""The diagnosis of a run: what it shows, and what to try next."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_clip.diagnosis import limit_checks, norm_checks, variable_checks
from keras_clip.diagnosis.run import Finding, Run, run_of
from keras_clip.monitoring.clipping_summary import percent

# The most serious first.
_CHECKS: tuple[Callable[[Run], Finding | None], ...] = (
    norm_checks.nonfinite_applied,
    norm_checks.overflow_loop,
    norm_checks.frequent_overflows,
    limit_checks.threshold_follows,
    norm_checks.growth,
    norm_checks.spikes,
    norm_checks.zero_gradients,
    variable_checks.dead_variables,
    variable_checks.one_variable,
    limit_checks.frequent_skips,
    limit_checks.limiter,
    limit_checks.always_limited,
    limit_checks.step_size,
    limit_checks.idle_threshold,
)
_SELDOM, _MOSTLY = 0.1, 0.5


@dataclass(frozen=True)
class Diagnosis:
    """What a run shows. `print(diagnosis)` shows it as a paragraph.

    Args:
        summary: str, what the clip did to the run.
        findings: tuple of `Finding`, the faults, the most serious first. Each has a `name`, a
            `text` and an `advice`. It is empty for a healthy run.

    Raises:
        FrozenInstanceError: an attribute is assigned.

    Example:
        >>> import keras_clip
        >>> keras_clip.diagnose({"grad_norm": [1.0, 1.2] * 50}).findings
        ()
    """

    summary: str
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        found = [str(finding) for finding in self.findings]
        return " ".join([self.summary, *(found or ["Nothing conspicuous."])])


def diagnose(source: Any) -> Diagnosis:
    """Say in plain sentences what a recorded run shows, and what to try next.

    Each check is a rule on the columns of the record, for example

    `spike: norm > 10 * median, and log(norm) > median + 6 deviations, of about 50 norms around`
    `growing norms: a median of five norms in a row > 30 * the least of the first five, and
    > 10 * the median of all`
    `limiter: 95 % of the updates clipped, to less than a tenth in the median`

    The thresholds were chosen so that 20 healthy runs of ten small tasks show nothing. A run with
    fewer than 20 updates shows little.

    Args:
        source: a `ClipMonitor`, a `ClippedOptimizer`, the `History` that `model.fit` returned, a
            record, or the path of its CSV file. A monitor or optimizer that recorded
            `variable_norms` also names variables.

    Returns:
        A `Diagnosis`: a `summary`, and `findings` with the faults.

    Raises:
        TypeError: `source` is something else.
        ValueError: it has no updates, no column `grad_norm`, or several wrappers; or the file is
            not a record.

    Reference:
        Ours. `docs/diagnosis.md` lists the checks.

    Example:
        >>> import numpy as np, keras_clip
        >>> norms = np.where(np.arange(200) % 40 == 7, 50.0, 1.0)
        >>> diagnosis = keras_clip.diagnose({"grad_norm": norms})
        >>> [finding.name for finding in diagnosis.findings]
        ['spikes']
    """
    run = run_of(source)
    if not run.norms.size:
        raise ValueError("There is nothing to diagnose: the record has no updates yet.")
    found = (check(run) for check in _CHECKS)
    return Diagnosis(_summary(run), tuple(finding for finding in found if finding is not None))


def _summary(run: Run) -> str:
    summary = run.summary
    skipped = f", {summary.skipped:,} of them skipped" if summary.skipped else ""
    text = f"{summary.updates:,} updates{skipped}."
    share = summary.clipped_fraction
    if share is None:
        return f"{text} How many were clipped is not known."
    if share == 0:
        return f"{text} None was clipped."
    scale = float(np.nanmedian(run.record["clip_scale"][run.is_applied]))
    if share < _SELDOM:
        return f"{text} {percent(share)} were clipped: the threshold is a safety net."
    if share < _MOSTLY:
        return f"{text} {percent(share)} were clipped."
    return (
        f"{text} {percent(share)} were clipped: the threshold limits the usual update, to "
        f"{percent(scale)} of its length."
    )
