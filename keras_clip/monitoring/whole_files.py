"""Write files so that a full disk or a killed process does not damage existing content."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file completely or not at all.

    Args:
        path: the file. An existing one is replaced. If it is a link, its target is replaced.
        content: all bytes of the file.

    Raises:
        OSError: the file cannot be written; the message names it. An existing file is unchanged.
    """
    target = Path(os.path.realpath(path))
    with _errors_name(path):
        if target.exists() and not target.is_file():
            # A pipe or a device such as /dev/null cannot be replaced.
            target.write_bytes(content)
            return
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def open_to_append(path: str | os.PathLike[str]) -> Iterator[FileIO]:
    """Open a file for reading and for `append`; an `OSError` inside names it."""
    # Unbuffered: a failing write must fail inside the context, where it can be undone.
    with _errors_name(path), open(path, "a+b", buffering=0) as file:
        yield file


def append(file: FileIO, content: bytes) -> None:
    """Add bytes to the end of an unbuffered file: all of them, or none on failure."""
    size = file.seek(0, os.SEEK_END)
    rest = memoryview(content)
    try:
        # One call writes all of it, unless the disk is nearly full.
        while rest:
            rest = rest[file.write(rest) :]
    except BaseException:
        file.truncate(size)
        raise


@contextmanager
def _errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error
