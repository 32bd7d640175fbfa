"""Which optimizer test files the installed Keras ships."""

from pathlib import Path

import keras

FIRST_VERSION_WITH_TESTS = (3, 15, 1)
"""Looked for in the wheels of 3.8 to 3.14 and of 3.15.0: these hold no test files."""

INSTALLED_VERSION = tuple(int(part) for part in keras.__version__.split(".")[:3])


def shipped_test_files() -> dict[str, Path]:
    """Return the test files beside Keras's optimizers, by module name."""
    folder = Path(keras.__file__).parent / "src" / "optimizers"
    return {path.stem: path for path in sorted(folder.glob("*_test.py"))}
