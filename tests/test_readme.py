"""Every Python block of the README, run as it stands, in order."""

import re
from pathlib import Path

import keras
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.support.gradient_stream import assert_identical, values
from tests.support.models import fit, make_model

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run():
    names = {}
    assert len(BLOCKS) == 6
    for block in BLOCKS:
        if "import tensorflow" in block and keras.config.backend() != "tensorflow":
            continue
        exec(compile(block, "README.md", "exec"), names)
    assert float(names["norm"]) == 5.0
    assert isinstance(names["optimizer"].clipper, names["ClipToRunningMean"])


def test_the_clipper_of_your_own_keeps_its_state(tmp_path):
    """The very text of the README: at most twenty lines, saved, loaded, and trained on."""
    (block,) = (block for block in BLOCKS if "class ClipToRunningMean" in block)
    text = block[: block.index("optimizer =")]
    assert len(text.strip().splitlines()) <= 20
    names = {"keras": keras, "keras_clip": keras_clip}
    exec(compile(text, "README.md", "exec"), names)
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


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", README))))
def test_files_it_names_exist(path):
    assert (Path(__file__).parents[1] / path).is_file()


def test_every_clipper_is_in_the_readme():
    for name, value in vars(keras_clip.clippers).items():
        if isinstance(value, type) and issubclass(value, keras_clip.Clipper):
            assert name in README
