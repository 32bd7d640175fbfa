"""Private copies of Keras's test files, whose imports can be answered with stand-ins."""

import builtins
import importlib.util
import unittest
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .stand_ins import Decision, stand_in_for


def load_test_classes(path: Path, decision: Decision | None) -> dict[str, type[unittest.TestCase]]:
    """Return the test classes of a Keras test file, by name.

    Args:
        path: the file.
        decision: which optimizers the tests get wrapped; None changes nothing.
    """
    specification = importlib.util.spec_from_file_location(f"copy_of_{path.stem}", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    if decision is not None:
        # A module may have builtins of its own. Its imports are thereby answered for it
        # alone, also those inside its functions, and Keras stays as it is for all others.
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _Import(decision)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        specification.loader.exec_module(module)
    return {name: value for name, value in vars(module).items() if _is_test_class(value, module)}


def _is_test_class(value: Any, module: ModuleType) -> bool:
    is_test_class = isinstance(value, type) and issubclass(value, unittest.TestCase)
    return is_test_class and value.__module__ == module.__name__


class _Import:
    """Stands for `__import__`; the tests see imports from inside Keras through a view."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def __call__(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        module = builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist and name.startswith("keras.src"):
            return _View(module, self._decision)
        return module


class _View(ModuleType):
    """A module as it is, except for the names that have a stand-in."""

    def __init__(self, module: ModuleType, decision: Decision) -> None:
        super().__init__(module.__name__)
        self._module = module
        self._decision = decision

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, ModuleType) and value.__name__ == "keras.src.optimizers":
            return _View(value, self._decision)
        return stand_in_for(value, self._decision)
