"""Records and variable records as CSV files, exact to the last bit of each float64."""

import csv
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import Any

import numpy as np

from keras_clip.monitoring.whole_files import append, open_to_append, replace_file
from keras_clip.records.history import UPDATE_COLUMNS

_FLAGS = ("skipped", "rolled_back")
RECORD_COLUMNS = ("step", "grad_norm", "clip_threshold", "clip_scale", *_FLAGS)

# The second has what `max_update_ratio` measures as well.
_HEADERS = (RECORD_COLUMNS, (*RECORD_COLUMNS, *UPDATE_COLUMNS))

_ENCODING = "utf-8"


def write_csv(record: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a record or a variable record to a CSV file, completely or not at all.

    The first line has the column names. Then each update has a line: integers unchanged, booleans
    as 0 or 1, `nan` and `inf`, and floats with enough digits to read back the same float64.

    Args:
        record: column names to 1-D arrays of one length; `step` comes first.
        path: the file; an existing one is replaced.

    Raises:
        ValueError: the columns have different lengths, or `step` is not the first.
        OSError: the file cannot be written; the message names it. An existing file is unchanged.
    """
    replace_file(path, (_header(record) + _lines(record)).encode(_ENCODING))


def append_csv(rows: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Add rows to the end of a file of `write_csv`, or begin a new file.

    An unfinished last line, left by a program that stopped while writing, is removed first.

    Args:
        rows: as in `write_csv`.
        path: the file.

    Raises:
        ValueError: the file holds other columns, or `rows` is not a record.
        OSError: the file cannot be written; the message names it. Its finished lines are
            unchanged.
    """
    header, lines = _header(rows).encode(_ENCODING), _lines(rows).encode(_ENCODING)
    with open_to_append(path) as file:
        file.seek(0)
        found = file.read(len(header))
        if not header.startswith(found):
            raise ValueError(_other_columns(path, header, found))
        _drop_unfinished_line(file)
        append(file, lines if found == header else header + lines)


def read_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the record that `write_csv` wrote.

    A last line without its end is left out, with a warning.

    Raises:
        ValueError: the file is another one; the message names the first wrong line.
        OSError: the file cannot be read.
    """
    header, lines, offset = _split(path)
    if tuple(header) not in _HEADERS:
        raise _no_record(path, 1, f"the column names {','.join(RECORD_COLUMNS)}", ",".join(header))
    return _columns(path, header, lines, offset)


def read_variables_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the variable record that `write_csv` wrote: `step`, then a column for each variable.

    A last line without its end is left out, with a warning.

    Raises:
        ValueError: the file is another one; the message names the first wrong line.
        OSError: the file cannot be read.
    """
    header, lines, offset = _split(path)
    if header[:1] != ["step"] or tuple(header) in _HEADERS:
        raise _no_record(path, 1, "'step' and the paths of variables", ",".join(header))
    if len(set(header)) < len(header):
        raise _no_record(path, 1, "each variable once", ",".join(header))
    return _columns(path, header, lines, offset)


def _header(record: Mapping[str, Any]) -> str:
    if next(iter(record), None) != "step":
        raise ValueError(
            f"The first column of a record is 'step'. Received the columns {list(record)}."
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(record)
    return text.getvalue()


def _lines(record: Mapping[str, Any]) -> str:
    columns = {name: np.asarray(column) for name, column in record.items()}
    shapes = {column.shape for column in columns.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            "The columns of a record are 1-D and of one length. Received the shapes "
            f"{ {name: column.shape for name, column in columns.items()} }."
        )
    rows = zip(*(_texts(column) for column in columns.values()), strict=True)
    return "".join([",".join(row) + "\n" for row in rows])


def _texts(column: np.ndarray) -> list[str]:
    if column.dtype.kind in "biu":
        return list(map(str, column.astype(np.int64).tolist()))
    # As a Python float: NumPy 2 writes its own as 'np.float64(...)'.
    return list(map(repr, column.astype(np.float64).tolist()))


def _other_columns(path: str | os.PathLike[str], expected: bytes, received: bytes) -> str:
    first_line = _first_line(received.decode(_ENCODING, errors="replace"))
    return (
        f"{os.fspath(path)} holds other columns than the rows to add, or no record. Expected the "
        f"first line {expected.decode(_ENCODING).rstrip()!r}, received {first_line!r}. "
        "Choose another file, or remove this one."
    )


def _drop_unfinished_line(file: FileIO) -> None:
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        last = file.read(end - start).rfind(b"\n")
        if last >= 0:
            end = start + last + 1
            break
        end = start
    if end < size:
        file.truncate(end)


def _split(path: str | os.PathLike[str]) -> tuple[list[str], list[str], int]:
    """Return the column names, the lines after them, and the number of lines before these."""
    try:
        # A spreadsheet program may have put a byte order mark in front.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(iter(file.readline, ""))
            header = next(reader, [])
            rest = file.read()
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(
            f"{os.fspath(path)}, line 1: expected text, received other bytes."
        ) from None
    lines = rest.split("\n")
    # Text after the last line end is a line whose writer was stopped.
    unfinished = lines.pop()
    if unfinished:
        warnings.warn(
            f"{os.fspath(path)} ends in the middle of a line: its writer was probably stopped. "
            f"Line {reader.line_num + len(lines) + 1} is left out: {_first_line(unfinished)!r}.",
            stacklevel=3,
        )
    return header, lines, reader.line_num


def _columns(
    path: str | os.PathLike[str], header: Sequence[str], lines: Sequence[str], offset: int
) -> dict[str, np.ndarray]:
    try:
        return _parse(header, lines)
    except (ValueError, OverflowError):
        for number, line in enumerate(lines, offset + 1):
            try:
                _parse(header, [line])
            except (ValueError, OverflowError):
                raise _no_record(path, number, _expected(header), line) from None
        raise


def _parse(header: Sequence[str], lines: Sequence[str]) -> dict[str, np.ndarray]:
    rows = [line.split(",") for line in lines]
    if any(len(row) != len(header) for row in rows):
        raise ValueError
    columns = zip(*rows, strict=True) if rows else ((),) * len(header)
    is_record = tuple(header) in _HEADERS
    return {
        name: _array(name if is_record or name == "step" else "", cells, len(rows))
        for name, cells in zip(header, columns, strict=True)
    }


def _array(name: str, cells: Sequence[str], count: int) -> np.ndarray:
    if name == "step":
        return np.fromiter(map(int, cells), np.int64, count)
    if name in _FLAGS:
        return np.fromiter((("0", "1").index(cell.rstrip("\r")) for cell in cells), bool, count)
    return np.fromiter(map(float, cells), np.float64, count)


def _expected(header: Sequence[str]) -> str:
    numbers = f"a whole number and {len(header) - 1} numbers"
    if tuple(header) in _HEADERS:
        numbers = "a whole number, three numbers and twice 0 or 1"
    if len(header) > len(RECORD_COLUMNS) and tuple(header) in _HEADERS:
        numbers += ", and two numbers"
    return f"{numbers}, separated by commas"


def _no_record(
    path: str | os.PathLike[str], number: int, expected: str, received: str
) -> ValueError:
    return ValueError(
        f"{os.fspath(path)}, line {number}: expected {expected}, received "
        f"{_first_line(received)!r}. This is not a record that keras_clip wrote."
    )


def _first_line(text: str) -> str:
    """Return enough of it to recognise it by."""
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 80 else f"{line[:77]}..."
