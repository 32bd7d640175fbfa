"""The numbers of a record that its report and the suggestion share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_clip.monitoring.as_record import as_record

PERCENTS = (5, 25, 50, 75, 90, 95, 99, 100)


@dataclass(frozen=True)
class ClippingSummary:
    """What happened to the updates of a record.

    Attributes:
        updates: number of all updates.
        skipped: number of updates that were not applied.
        rolled_back: number of updates that `RollBack` took back.
        nonfinite: number of updates whose norm is NaN or infinite, skipped or not.
        clipped: number of updates that were applied and clipped; None if unknown.
        percentiles: percent to norm before clipping, over applied updates with a finite norm;
            empty without such updates.
        latest_threshold: threshold of the last applied update that has one, or None.
        limited: how many were applied with a smaller change, by `max_update_ratio`; None if that
            was not measured.
        median_update_ratio: of the applied updates, before the limit; None likewise.
    """

    updates: int
    skipped: int
    rolled_back: int
    nonfinite: int
    clipped: int | None
    percentiles: Mapping[int, float]
    latest_threshold: float | None
    limited: int | None = None
    median_update_ratio: float | None = None

    @property
    def applied(self) -> int:
        """Number of applied updates."""
        return self.updates - self.skipped

    @property
    def clipped_fraction(self) -> float | None:
        """Share of the applied updates that were clipped; None if unknown."""
        if self.clipped is None or not self.applied:
            return None
        return self.clipped / self.applied

    @property
    def limited_fraction(self) -> float | None:
        """Share of the applied updates that was limited; None if that is not known."""
        if self.limited is None or not self.applied:
            return None
        return self.limited / self.applied


def summarize(source: Any) -> ClippingSummary:
    """Return the summary of a record, or of any source that `as_record` accepts."""
    record = as_record(source)
    ratios = update_ratios(record)
    norms, skipped = record["grad_norm"], record["skipped"]
    known = ~np.isnan(record["clip_scale"][~skipped])
    return ClippingSummary(
        updates=norms.size,
        skipped=int(skipped.sum()),
        rolled_back=int(record["rolled_back"].sum()),
        nonfinite=int((~np.isfinite(norms)).sum()),
        clipped=int(is_clipped(record).sum()) if known.any() else None,
        percentiles=percentiles(finite_norms(record)),
        latest_threshold=latest_threshold(record),
        limited=int(is_limited(record).sum()) if ratios.size else None,
        median_update_ratio=float(np.median(ratios)) if ratios.size else None,
    )


def latest_threshold(record: Mapping[str, np.ndarray]) -> float | None:
    """Return the threshold of the last applied update that has one, or None."""
    thresholds = record["clip_threshold"][~record["skipped"]]
    # AutoClip has no threshold for a NaN norm.
    known = thresholds[~np.isnan(thresholds)]
    return float(known[-1]) if len(known) else None


def is_clipped(record: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each update whether it was applied and clipped."""
    # A NaN compares as false: whether such an update was clipped is unknown.
    clipped: np.ndarray = ~record["skipped"] & (record["clip_scale"] < 1)
    return clipped


def update_ratios(record: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the ratios of updates to weights before the limit, where measured, in order."""
    ratios: np.ndarray = record.get("update_ratio", np.zeros(0))
    measured: np.ndarray = ratios[~np.isnan(ratios)]
    return measured


def is_limited(record: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each update whether its change was made smaller."""
    # A NaN, of a skipped update, compares as false.
    limited: np.ndarray = record["update_scale"] < 1
    return limited


def finite_norms(record: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the finite norms of the applied updates, in order."""
    norms: np.ndarray = record["grad_norm"][~record["skipped"]]
    finite: np.ndarray = norms[np.isfinite(norms)]
    return finite


def percentiles(norms: np.ndarray) -> dict[int, float]:
    """Return percent to norm for each of `PERCENTS`; empty without norms."""
    if not norms.size:
        return {}
    values = np.percentile(norms, PERCENTS).tolist()
    return dict(zip(PERCENTS, values, strict=True))


def percent(share: float) -> str:
    """Format a share from 0 to 1; only exactly 0 gives 0 %, only exactly 1 gives 100 %."""
    value = 100 * share
    if 0 < value < 0.01:
        return "less than 0.01 %"
    if 0 < value < 10:
        return f"{value:.2g} %"
    if 99 < value < 100:
        return f"{min(value, 99.99):.4g} %"
    return f"{value:.0f} %"
