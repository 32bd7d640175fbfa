"""The report on a recorded run, for `python -m keras_clip report`."""

from pathlib import Path

from keras_clip.diagnosis.diagnose import diagnose
from keras_clip.monitoring.clipping_summary import ClippingSummary, percent, summarize
from keras_clip.monitoring.plot_clipping import plot_clipping
from keras_clip.monitoring.record_csv import read_csv
from keras_clip.monitoring.suggest_max_norm import suggest_max_norm


def report(path: Path, output: Path | None = None) -> None:
    """Print summary, diagnosis and suggested threshold of a record, and write its figure.

    Args:
        path: CSV file of the record.
        output: file to write the figure to. Defaults to None, a PNG file beside the record.

    Raises:
        ImportError: matplotlib is not installed; raised after the text is printed.
        OSError: a file cannot be read or written.
        ValueError: the file is not a record, has no updates, or the figure's format is unknown.
    """
    record = read_csv(path)
    if not record["step"].size:
        raise ValueError(f"{path} has no updates yet, only the names of the columns.")
    print(f"{path}\n\n{summary_text(summarize(record))}\n\n{diagnose(record)}\n")
    try:
        print(suggest_max_norm(record))
    except ValueError as error:
        # Without a suggestion, the rest of the report is still useful.
        print(f"No max_norm suggested. {error}")
    output = path.with_suffix(".png") if output is None else output
    plot_clipping(record, path=output, title=f"{path.name}: gradient norm before clipping")
    print(f"\nFigure: {output}")


def summary_text(summary: ClippingSummary) -> str:
    """Return the summary as lines, each with a name and a number."""
    share = summary.clipped_fraction
    threshold = summary.latest_threshold
    lines = {
        "updates": f"{summary.updates:,}",
        "skipped": f"{summary.skipped:,}",
        "rolled back": f"{summary.rolled_back:,}",
        "NaN or infinite": f"{summary.nonfinite:,}",
        "clipped": "not known" if share is None else f"{percent(share)} of those applied",
        "latest threshold": "none for the global norm" if threshold is None else f"{threshold:g}",
    }
    if summary.percentiles:
        values = {"median norm": 50, "99th percentile": 99, "largest norm": 100}
        lines |= {name: f"{summary.percentiles[key]:.3g}" for name, key in values.items()}
    limited, ratio = summary.limited_fraction, summary.median_update_ratio
    if limited is not None and ratio is not None:
        lines |= {
            "median update ratio": f"{ratio:.2g}",
            "limited by max_update_ratio": f"{percent(limited)} of those applied",
        }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())
