"""Every Python block of the README, run as it stands, in order."""

import re
from pathlib import Path

import keras
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run():
    names = {}
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        if "import tensorflow" in block and keras.config.backend() != "tensorflow":
            continue
        exec(compile(block, "README.md", "exec"), names)
    assert float(names["norm"]) == 5.0
    assert isinstance(names["optimizer"].clipper, names["ClipToRunningMean"])


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", README))))
def test_files_it_names_exist(path):
    assert (Path(__file__).parents[1] / path).is_file()
