"""README and pages: every Python block runs unchanged, and all names in the text exist."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.support.code_blocks import blocks_here, blocks_of, run
from tests.support.gradient_stream import assert_identical, values
from tests.support.models import fit, make_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}

WITH_BLOCKS = [name for name, text in TEXTS.items() if blocks_of(text)]
# Of requirements/recipes.txt, which `make endurance` installs.
PACKAGES = re.compile(r"^import (bayesflow|keras_hub|keras_tuner)$", flags=re.MULTILINE)
NEED_PACKAGES = [name for name in WITH_BLOCKS if PACKAGES.search(TEXTS[name])]


def _runs(name):
    """Return the page; a recipe that has the same blocks everywhere runs on one backend."""
    text = TEXTS[name]
    is_same = name.startswith("docs/recipes/") and len(blocks_here(text)) == len(blocks_of(text))
    return pytest.param(name, marks=[pytest.mark.any_backend] if is_same else [])


RUN_HERE = [
    _runs(name) for name in WITH_BLOCKS if blocks_here(TEXTS[name]) and name not in NEED_PACKAGES
]


@pytest.mark.parametrize("name", RUN_HERE)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    """Run the blocks of a page one after another, with the names of earlier blocks."""
    monkeypatch.chdir(tmp_path)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        # With collectives, a process can have only one MirroredStrategy, and other tests have one.
        without = partial(
            tf.distribute.MirroredStrategy, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", without)
    names = run(name, TEXTS[name])
    assert names
    # The norm of the gradient (3, 4), on every page that clips it.
    assert float(names.get("norm", 5.0)) == 5.0
    # The terminal command of the page, on the files of its blocks.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for command in re.findall(r"^python (-m keras_clip .*)$", TEXTS[name], flags=re.MULTILINE):
        printed = subprocess.check_output([sys.executable, *shlex.split(command)], text=True)
        assert printed.strip()


@pytest.mark.endurance
@pytest.mark.parametrize("name", NEED_PACKAGES)
def test_python_blocks_run_with_packages(name, tmp_path):
    """In a process of its own: bayesflow turns off torch's derivatives for all that follows."""
    (package,) = PACKAGES.findall(TEXTS[name])
    assert importlib.util.find_spec(package), (
        f"{package} is not installed: `make endurance` installs requirements/recipes.txt."
    )
    program = (
        "import sys, pathlib\n"
        "from tests.support.code_blocks import run\n"
        "assert run(sys.argv[1], pathlib.Path(sys.argv[1]).read_text())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(ROOT / name)]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


def test_every_guide_has_a_block_that_runs():
    navigation = (ROOT / "mkdocs.yml").read_text()
    guide = navigation[navigation.index("- Guide:") : navigation.index("- Background:")]
    guides = {f"docs/{page}" for page in re.findall(r"^ +- (\S+\.md)$", guide, re.MULTILINE)}
    assert len(guides) > 5
    assert set(WITH_BLOCKS) == {"README.md", "docs/index.md", *guides}


def test_blocks_are_those_that_run():
    """No language but Python, no indented fence, that would escape the pattern above."""
    for name, text in TEXTS.items():
        fences = re.findall(r"^[ >]*```.*$", text, flags=re.MULTILINE)
        starts = fences[::2]
        assert set(starts) <= {"```python", "```"}, name
        assert starts.count("```python") == len(blocks_of(text))


def test_the_clipper_of_your_own_keeps_its_state(tmp_path):
    """The text of the page itself: at most twenty lines, saved, loaded, and trained on."""
    blocks = blocks_of(TEXTS["docs/writing-a-clipper.md"])
    (block,) = (block for block in blocks if "class ClipToRunningMean" in block)
    text = block[: block.index("optimizer =")]
    assert len(text.strip().splitlines()) <= 20
    names = {"keras": keras, "keras_clip": keras_clip}
    exec(compile(text, "writing-a-clipper.md", "exec"), names)
    model = make_model(ClippedOptimizer("adam", clipper=names["ClipToRunningMean"](0.5)))
    fit(model)
    assert float(model.optimizer.clipper.mean.numpy()) > 0
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.clipper.get_config() == {"decay": 0.5}
    fit(model)
    fit(loaded)
    assert_identical(loaded.get_weights(), model.get_weights())
    assert_identical(values(loaded.optimizer.variables), values(model.optimizer.variables))


def test_files_that_are_named_exist():
    named = {
        path
        for text in TEXTS.values()
        for path in re.findall(r"`((?:tests|benchmarks|keras_clip|docs)/[\w/.-]*\.\w+)`", text)
    }
    assert len(named) > 10
    assert not [path for path in named if not (ROOT / path).is_file()]


def test_links_of_the_readme_lead_to_pages_and_headings():
    """The links between pages are checked where they are built."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", TEXTS["README.md"])
    assert len(links) > 5
    for path, anchor in links:
        assert (ROOT / path).is_file(), path
        if anchor:
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", TEXTS[path], re.MULTILINE)}


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", ["README.md", "docs/choosing-a-clipper.md"])
def test_every_clipper_is_named(name):
    for clipper, value in vars(keras_clip.clippers).items():
        if isinstance(value, type) and issubclass(value, keras_clip.Clipper):
            assert clipper in TEXTS[name]


def test_every_public_name_is_in_the_reference():
    described = {
        name
        for path, text in TEXTS.items()
        if path.startswith("docs/reference/")
        for name in re.findall(r"^::: keras_clip\.(\w+)", text, flags=re.MULTILINE)
    }
    assert described == set(keras_clip.__all__)


def test_the_table_of_defects_stands_once():
    tables = [name for name, text in TEXTS.items() if "| Case | Keras `global_clipnorm` |" in text]
    assert tables == ["docs/coming-from-another-clip.md"]
