"""The benchmarks of cost run, and record the data of tables and figures."""

import json
import math
import shutil
from pathlib import Path

import keras
import pytest

pytest.importorskip("threadpoolctl")
if keras.config.backend() == "jax":
    pytest.importorskip("optax")

from benchmarks import (
    clip_cost,
    eager_apply,
    growth,
    start_cost,
    step_cost,
    write_tables,
)

# Most of their time is imports and compilation, on every backend.
pytestmark = [pytest.mark.exhaustive, pytest.mark.any_backend]

STATES = {"nothing clipped", "all clipped"}


def load(path: Path) -> dict:
    (found,) = path.glob("*.json")
    result = json.loads(found.read_text())
    assert keras.config.backend() in found.name
    assert result["backend"] == keras.config.backend()
    assert {"keras", "python", "machine"} <= set(result["versions"])
    return result


def assert_spread(own: dict[str, float]) -> None:
    assert 0.0 < own["lower"] <= own["median"] <= own["upper"] < math.inf


@pytest.fixture(autouse=True)
def _own_copy_of_the_page(tmp_path, monkeypatch):
    # A measurement inside a test is not a result.
    page = tmp_path / "page" / "README.md"
    page.parent.mkdir()
    shutil.copy(write_tables.FOLDER / "README.md", page)
    yield
    measured = tmp_path / "results"
    if measured.exists():
        before = page.read_text()
        write_tables.write_costs(page, measured)
        assert page.read_text() != before


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def test_the_clip_alone(results):
    # Sparse gradients are TensorFlow's, and XLA takes longer for larger graphs.
    only = ["kernel", "transformer" if keras.config.backend() == "tensorflow" else "demo"]
    clip_cost.main(["--smoke", "--only", *only, "--folder", str(results)])
    found = load(results)
    assert list(found["sets"]) == only
    for own in found["sets"].values():
        assert own["repetitions"] >= 5
        for state in STATES:
            ours = own["measured"][f"keras_clip: {state}"]
            assert_spread(ours["milliseconds"])
            assert set(ours["ratios"]) == {
                f"{other}: {state}" for other in ("limit", "Keras", "peer", "without safety")
            }
            for ratio in ours["ratios"].values():
                assert_spread(ratio)
    assert (results / "clip_cost.png").stat().st_size > 10_000


@pytest.mark.endurance
def test_whole_steps(results):
    few = ["--quick", "--model", "demo", "--repetitions", "1", "--steps", "1"]
    step_cost.main([*few, "--optimizer", "sgd", "--folder", str(results)])
    found = load(results)
    assert found["model"] == "demo"
    assert found["optimizer"] == "sgd"
    assert found["measured"]["no clipping"]["ratio"] == 1.0
    assert {f"keras_clip, history_size=0: {state}" for state in STATES} <= set(found["measured"])


def test_updates_where_nothing_is_compiled(results):
    eager_apply.main(["--variables", "2", "--seconds", "0", "--folder", str(results)])
    for own in load(results)["measured"].values():
        assert_spread(own["ratios"]["no clipping"])


@pytest.mark.endurance
def test_start(results):
    start_cost.main(["--smoke", "--only", "build", "--folder", str(results)])
    build = load(results)["measured"]["build"]
    assert list(build) == ["no clipping", "keras_clip"]
    for own in build.values():
        assert_spread(own)


def test_growth_with_parameters(results):
    variants = growth.clip_variants(_clips(), growth.equal_shapes(20, 2))
    measured = growth.measure(variants, 0.0)
    assert {
        f"{kind}: {state}" for kind in ("limit", "keras_clip", "Keras", "peer") for state in STATES
    } == set(measured)
    # The test cannot make a whole run, which splits the CPU.
    points = [[count, measured] for count in (10, 100)]
    found = {
        "backend": keras.config.backend(),
        "growth": {"parameters": points, "variables": points},
    }
    (results / "growth_some.json").write_text(json.dumps(found))
    growth.draw_growth(results)
    assert (results / "growth.png").stat().st_size > 10_000
    shutil.rmtree(results)


def _clips():
    from importlib import import_module

    return import_module(f"benchmarks.{clip_cost.CLIPS_OF_BACKEND[keras.config.backend()]}")
