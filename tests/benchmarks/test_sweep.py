"""Every task of the sweep trains, and a stopped sweep resumes."""

import json
import math

import keras
import numpy as np
import pytest

if keras.config.backend() != "jax":
    pytest.skip("the sweep is a program of JAX", allow_module_level=True)

from benchmarks import tasks
from benchmarks.sweep import __main__ as sweep
from benchmarks.sweep.cells import Cell, Extent
from benchmarks.sweep.training import train

# Two steps of each take seconds; the other tasks compile for longer.
QUICK = {"dense_digits", "heavy_tailed_regression"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.endurance) for n in tasks.NAMES],
)
def test_a_task_trains_two_steps(name, monkeypatch):
    monkeypatch.setattr(Extent, "steps", lambda self, steps: 2)
    found = train(Cell(name, "adam", "number", "constant"), Extent("quick"))
    score = np.array(found["score"], float)
    assert score.shape == (len(found["settings"]), len(found["learning_rates"]), 2)
    # At the lowest learning rate.
    assert np.isfinite(score[:, 0]).all()
    limited = dict(zip(found["settings"], found["limited_share"], strict=True))
    assert max(limited["none"]) == 0.0
    assert not math.isnan(max(limited["max_update_ratio=0.003"]))


@pytest.mark.exhaustive
def test_a_sweep_that_was_stopped_goes_on(monkeypatch, tmp_path, capsys):
    trained = []

    def stopping(due, extent, workers):
        del extent, workers
        for cell in due:
            if len(trained) == 2:
                raise KeyboardInterrupt
            trained.append(cell)
            yield cell, {"seconds": {"compile": 0, "run": 0}, "score": [len(trained)]}, {}

    monkeypatch.setattr(sweep, "trained", stopping)
    command = ["--results", str(tmp_path), "--only", "lora", "fine_tuning", "--rules", "number"]
    command += ["--optimizers", "sgd", "adam"]
    with pytest.raises(KeyboardInterrupt):
        sweep.main(command)
    first = list(trained)
    trained.clear()
    sweep.main(command)
    assert len({*first, *trained}) == len(first) + len(trained) == 4
    assert "4 cells, 2 of them done" in capsys.readouterr().out
    written = json.loads((tmp_path / "tasks_sweep.json").read_text())["cells"]
    assert [written[cell.key]["score"] for cell in first] == [[1], [2]]
