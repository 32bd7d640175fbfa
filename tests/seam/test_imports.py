"""Frameworks come in through one door, and modules depend on each other one way."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_clip

PACKAGE = Path(keras_clip.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
SEAM = PACKAGE / "_seam"
FRAMEWORKS = {"tensorflow", "jax", "torch"}

# The parts that each part of keras_clip may import.
ALLOWED = {
    "types": set(),
    "arguments": {"arguments", "types"},
    "layers": {"_seam", "layers", "types"},
    "_seam": {"_seam", "norms", "types"},
    "norms": {"_seam", "arguments", "norms", "types"},
    "weights": {"_seam", "arguments", "layers", "norms", "types", "weights"},
    "limits": {"clippers", "types", "weights"},
    "clippers": {"_seam", "arguments", "clippers", "layers", "norms", "types"},
    "construction": {"_seam", "arguments", "clippers", "construction", "types", "weights"},
    "skipping": {"_seam", "arguments", "clippers", "layers", "norms", "skipping", "types"},
    "records": {"_seam", "arguments", "clippers", "layers", "norms", "records", "types"},
    "applying": {"_seam", "clippers", "records", "skipping", "types", "weights"},
    "saving": {"_seam", "records", "types"},
    "readings": {"_seam", "records", "skipping", "types"},
    "adoption": {"_seam", "clippers", "construction", "optimizer", "types"},
    "optimizer": {
        "_seam",
        "applying",
        "arguments",
        "clippers",
        "construction",
        "limits",
        "readings",
        "records",
        "saving",
        "skipping",
        "types",
        "weights",
    },
    "monitoring": {
        "_seam",
        "arguments",
        "clippers",
        "monitoring",
        "optimizer",
        "records",
        "skipping",
    },
    "recovery": {"_seam", "arguments", "monitoring", "optimizer", "recovery", "types"},
    "diagnosis": {"diagnosis", "monitoring", "records"},
    "__main__": {"diagnosis"},
    "demo": {"demo", "monitoring", "optimizer", "records"},
    "": {
        "adoption",
        "arguments",
        "clippers",
        "diagnosis",
        "monitoring",
        "norms",
        "optimizer",
        "recovery",
        "skipping",
        "weights",
    },
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path):
    relative = path.relative_to(PACKAGE)
    first = relative.parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_go_one_way(path):
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "keras_clip" and len(parts) > 1 and parts[1] in ALLOWED:
            assert parts[1] in ALLOWED[part_of(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_only_in_their_own_folder(path):
    frameworks = {name.split(".")[0] for name in imports(path)} & FRAMEWORKS
    assert frameworks <= ({path.parent.name} if path.parent.parent == SEAM else set())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_backend_is_imported_by_its_own_folder_and_the_choice(path):
    folders = {name.split(".")[2] for name in imports(path) if name.startswith("keras_clip._seam.")}
    own = {path.parent.name} if path.parent.parent == SEAM else set()
    allowed = FRAMEWORKS if path == SEAM / "__init__.py" else own
    assert folders & FRAMEWORKS <= allowed


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        timeout=300,
    )


def test_importing_keras_clip_imports_no_other_backend():
    """No more frameworks than keras alone, in a fresh process."""
    loaded = "sorted({'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    monitoring = "[name for name in sys.modules if name.startswith('keras_clip.monitoring')]"
    result = run_python(
        f"import sys, keras; print({loaded}); import keras_clip; print({loaded}, {monitoring})"
    )
    assert result.returncode == 0, result.stderr
    alone, with_us = result.stdout.splitlines()
    # A run without monitoring does not import it.
    assert with_us == f"{alone} []"
    assert keras.config.backend() in with_us


@pytest.mark.any_backend
def test_importing_keras_clip_does_the_same_under_any_command_line():
    """`python -m keras_clip`, too, runs the package before its `__main__`."""
    result = run_python(
        "import sys; sys.argv = ['-m']; sys.orig_argv = ['python', '-m', 'keras_clip.demo']; "
        "import keras_clip; print(sorted({*keras_clip.__all__} - {*dir(keras_clip)}), "
        "sorted(name for name in keras_clip.__all__ if not hasattr(keras_clip, name)))"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[] []\n"


@pytest.mark.any_backend
def test_importing_keras_clip_registers_all_that_keras_saves():
    """A model must load: importing every module registers nothing more."""
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in MODULES
        if part_of(path) not in {"_seam", "__main__", "demo"}
    ]
    result = run_python(
        "import importlib, keras, keras_clip\n"
        "registered = lambda: sorted(keras.saving.get_custom_objects())\n"
        f"print(registered())\nfor name in {names}: importlib.import_module(name)\n"
        "print(registered())"
    )
    assert result.returncode == 0, result.stderr
    alone, with_all_modules = result.stdout.splitlines()
    assert alone == with_all_modules
    for name in ("ClippedOptimizer", "AdaGC", "Chain", "WeightClipping"):
        assert f"'keras_clip>{name}'" in alone


@pytest.mark.any_backend
def test_a_backend_that_does_not_train_is_refused():
    result = run_python("import keras_clip", KERAS_BACKEND="numpy")
    assert result.returncode == 1
    assert "ImportError: keras_clip cannot clip on the Keras backend 'numpy'" in result.stderr
