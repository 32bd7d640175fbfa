"""Objects of a class among all that are alive."""

import gc
from collections.abc import Iterator
from typing import Any


def instances_of(cls: type) -> Iterator[Any]:
    """Yield every object of the class and its subclasses that the collector knows."""
    # By the identity of the type, as `isinstance` asks the object, and some objects answer by
    # importing a module or by raising.
    types = {id(subclass) for subclass in _with_subclasses(cls)}
    return (thing for thing in gc.get_objects() if id(type(thing)) in types)


def _with_subclasses(cls: type) -> Iterator[type]:
    pending, seen = [cls], {cls}
    while pending:
        current = pending.pop()
        yield current
        # Past a metaclass that has a `__subclasses__` of its own.
        subclasses: list[type] = type.__subclasses__(current)
        new = [subclass for subclass in subclasses if subclass not in seen]
        seen.update(new)
        pending.extend(new)
