"""`python -m keras_clip report`: its output and its errors."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_clip.__main__ import main
from keras_clip.monitoring.record_csv import write_csv
from tests.monitoring.records import lognormal_norms, make_record

pytest.importorskip("matplotlib", reason="the oldest Keras is tested without")
pytestmark = pytest.mark.any_backend


@pytest.fixture
def path(tmp_path):
    norms = lognormal_norms(1000, spread=0.3)
    norms[7] = np.nan
    path = tmp_path / "run.csv"
    write_csv(make_record(norms, 1.2, np.isnan(norms)), path)
    return path


def test_is_a_command(path):
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "keras_clip", "report", str(path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"Figure: {path.with_suffix('.png')}" in result.stdout
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_prints_summary_and_suggestion(path, capsys):
    assert main(["report", str(path)]) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for line in (
        "updates 1,000",
        "skipped 1",
        "NaN or infinite 1",
        "clipped 25 % of those applied",
        "latest threshold 1.2",
        "Suggested: max_norm=1.4",
    ):
        assert line in lines


def test_a_figure_elsewhere(path, tmp_path):
    output = tmp_path / "figure.svg"
    assert main(["report", str(path), "--output", str(output)]) == 0
    assert "<svg" in output.read_text()
    assert not path.with_suffix(".png").exists()


def test_a_short_record_is_reported_without_a_suggestion(path, capsys):
    write_csv(make_record([1.0, 2.0]), path)
    assert main(["report", str(path)]) == 0
    assert "No max_norm suggested. A threshold needs the norms of at least 20 updates" in (
        capsys.readouterr().out
    )
    assert path.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.csv", None, "none.csv: No such file or directory."),
        ("log.csv", "epoch,loss\n0,1\n", "log.csv, line 1: expected the column names step,"),
        ("bad.csv", None, "bad.csv, line 3: expected a whole number"),
        ("empty.csv", None, "empty.csv has no updates yet"),
        (".", None, "Is a directory."),
    ],
)
def test_a_missing_or_wrong_file_is_one_line(tmp_path, capsys, name, text, message):
    path = tmp_path / name
    if text:
        path.write_text(text)
    if name == "bad.csv":
        write_csv(make_record([1.0]), path)
        with path.open("a") as file:
            file.write("1,2,3\n")
    if name == "empty.csv":
        write_csv(make_record([]), path)
    assert main(["report", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("python -m keras_clip report: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("output", "message"),
    [("figure.docx", "Format 'docx' is not supported"), ("none/figure.png", "No such file")],
)
def test_a_figure_that_cannot_be_written(path, tmp_path, capsys, output, message):
    assert main(["report", str(path), "--output", str(tmp_path / output)]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_the_text_is_printed(path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", str(path)]) == 2
    captured = capsys.readouterr()
    assert "Suggested: max_norm=1.4" in captured.out
    assert "pip install 'keras-clip[plot]'" in captured.err


@pytest.mark.parametrize("arguments", [[], ["reprot"], ["report"], ["report", "a", "--out", "b"]])
def test_a_mistyped_command_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
