"""The Python blocks of a page in Markdown.

    python -P tests/support/code_blocks.py README.md

runs the blocks for the current backend in a temporary folder, with the installed keras_clip.
"""

import os
import re
import sys
import tempfile
from pathlib import Path


def blocks_of(text):
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def blocks_here(text):
    """Return the blocks that import no other backend's framework."""
    import keras

    found = r"^import (tensorflow|jax|torch)\b"
    return [
        block
        for block in blocks_of(text)
        if set(re.findall(found, block, flags=re.MULTILINE)) <= {keras.config.backend()}
    ]


def run(name, text):
    """Run the blocks for the current backend one after another in one namespace, and return it."""
    names = {}
    for block in blocks_here(text):
        exec(compile(block, name, "exec"), names)
    return names


def main(path):
    import keras_clip

    text = Path(path).read_text()
    if Path(sys.prefix) not in Path(keras_clip.__file__).parents:
        raise SystemExit(f"{keras_clip.__file__} is not an installed keras_clip.")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run(path, text)
    print(f"{path}: {len(blocks_of(text))} blocks, keras_clip {keras_clip.__version__}: passed")


if __name__ == "__main__":
    main(sys.argv[1])
