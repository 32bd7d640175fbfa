"""Control goes one way: no hidden lookups, and only one class of another library is changed."""

import ast
from pathlib import Path

import pytest

import keras_clip

PACKAGE = Path(keras_clip.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HIDDEN = {
    "get_objects",
    "get_referrers",
    "currentframe",
    "_getframe",
    "stack",
    "orig_argv",
    "co_names",
    "__code__",
}
# `ops.stack` and the like do not come from `inspect`.
OWNERS_OF_STACK = {"inspect", "traceback"}

# Explained in docs/how-it-works.md.
THE_ONE_PLACE = "_seam/loss_scale.py"

# Settings that a user may assign too, and objects of keras_clip.
ALLOWED = {
    "adoption.py": ("optimizer.inner_optimizer",),
    "_seam/inherited_state.py": ("inner_of(self).learning_rate",),
    "limits.py": ("self.clipper.max_norm",),
    "monitoring/clip_monitor.py": ("self.model.train_function",),
    "clippers/clipper.py": ("member._prefix",),
    "_seam/tensorflow/graphs.py": ("graph._omit_frequent_tracing_warning",),
    "clippers/update.py": ("update.__dict__['global_norm']",),
}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def hidden_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in HIDDEN:
            owner = getattr(node.value, "id", "")
            if node.attr != "stack" or owner in OWNERS_OF_STACK:
                yield node.attr


def foreign_writes(tree):
    """Assignments to attributes of objects other than `self`, and writes into a `__dict__`."""
    for node in ast.walk(tree):
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            for target in targets:
                if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") not in (
                    "self",
                    "cls",
                ):
                    yield ast.unparse(target)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            text = ast.unparse(node.func)
            if text.endswith("__dict__.update") or text.endswith("__dict__.__setitem__"):
                yield text
        if isinstance(node, ast.Assign) and any("__dict__[" in ast.unparse(t) for t in targets):
            yield ast.unparse(targets[0])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_found_behind_its_back(path):
    assert not list(hidden_names(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_object_of_anothers_is_changed(path):
    written = [
        text
        for text in foreign_writes(ast.parse(path.read_text()))
        if text not in ALLOWED.get(name_of(path), ())
    ]
    if name_of(path) == THE_ONE_PLACE:
        assert written and all(text.startswith("outer_class.") for text in written)
    else:
        assert not written


def test_the_one_place_is_explained():
    page = (PACKAGE.parent / "docs" / "how-it-works.md").read_text()
    assert "keras_clip/" + THE_ONE_PLACE in page
