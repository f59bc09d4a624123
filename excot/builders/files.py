"""Reading question files: JSON, JSON Lines, CSV and Parquet, with the line where something is wrong."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ExcotError

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can escape one of a surrogate pair alone; UTF-8 has no such


def read_json(path: Path) -> list[Any]:
    """A JSON file that holds a list.

    Raises:
        ExcotError: it cannot be read, is malformed (with line and column), or holds something else.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ExcotError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})", "unpack the file again"
        ) from None
    if not isinstance(value, list):
        raise ExcotError(f"{path} holds a {type(value).__name__}, not a list", "is it the right file?")
    return value


def read_text(path: Path) -> str:
    """A file's text, without the byte order mark that some editors put before it.

    Raises:
        ExcotError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExcotError(f"{path} is not UTF-8 (byte {error.start})", "convert it to UTF-8") from None
    except OSError as error:
        raise ExcotError(f"cannot read {path} ({error.strerror})", "check the path and its permissions") from None


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file, each with where it stands, for messages."""
    if path.suffix == ".json":
        yield from ((f"{path}, question {number}", row) for number, row in enumerate(read_json(path)))
    elif path.suffix == ".jsonl":
        yield from read_jsonl(path)
    elif path.suffix == ".csv":
        yield from _read_csv(path)
    else:
        yield from _read_parquet(path)


def pick(where: str, row: Any, names: dict[str, str], optional: Iterable[str] = ()) -> dict[str, str | None]:
    """The fields of a row under our own names.

    Args:
        where: file and line, for the message.
        row: the row as it was read.
        names: our name for each field -> the file's name for it.
        optional: those of our names that may be missing or empty; they become ``None``.

    Raises:
        ExcotError: a field is missing, empty, or no text.
    """
    if not isinstance(row, dict):
        raise ExcotError(
            f"{where}: a {type(row).__name__} stands where a question should", "write one object a question"
        )
    picked = {}
    for ours, theirs in names.items():
        value = row.get(theirs)
        if value is None or (isinstance(value, str) and not value.strip()):
            if ours not in optional:
                raise ExcotError(
                    f"{where}: no {theirs!r}",
                    f"every question needs {', '.join(names[n] for n in names if n not in optional)}",
                )
            value = None
        elif not isinstance(value, str):
            raise ExcotError(f"{where}: {theirs!r} is {value!r}", "it must be text")
        elif not value.isascii() and _HALF_A_CHARACTER.search(value):
            raise ExcotError(f"{where}: {theirs!r} holds half a character, {value!a}", "write the whole character")
        picked[ours] = value
    return picked


def read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with one JSON value a line, each with where it stands; empty lines do not count."""
    # Not splitlines(): it would also cut at the line separators that may stand, unescaped, in a JSON string.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}, line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise ExcotError(f"{path}, line {number}: not valid JSON ({error.msg})", "mend the line") from None


def _read_csv(path: Path) -> Iterator[tuple[str, Any]]:
    # Not splitlines() here either: a line separator within a cell would end the row.
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        line = reader.reader.line_num
        raise ExcotError(f"{path}, line {line}: not valid CSV ({error})", "mend the line") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ExcotError(f"cannot read {path} ({error})", "is it a Parquet file?") from None
    yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
