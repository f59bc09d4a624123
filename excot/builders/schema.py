"""The schema text that a model reads: tables, columns, types, keys and sample values, made from what is at hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..execution import Column, Table

_SAMPLE_LENGTH = 40  # characters of one sample value
_DESCRIPTION_LENGTH = 200  # characters of one column's description

# Those that SQLite takes for a name only in quotes; BIRD has a table called "order".
_KEYWORDS = frozenset(
    "add all alter and as autoincrement between case cast check collate commit constraint create current_date "
    "current_time current_timestamp default deferrable delete distinct drop else escape except exists foreign from "
    "group having in index insert intersect into is isnull join limit not nothing notnull null on or order primary "
    "raise references returning select set table then to transaction union unique update using values when "
    "where".split()
)


def schema_text(tables: list[Table], descriptions: Mapping[tuple[str, str], str] | None = None) -> str:
    """Write tables for a prompt, one line a column.

    Args:
        tables: what `excot.execution.describe` or `tables_from_json` found.
        descriptions: what ``(table, column)``, both in lower case, means, where somebody has written it down.

    Returns:
        For each table its name and, indented below it, each column: type, primary key, what it references, up to
        three sample values as SQL literals, and its description.
    """
    return "\n\n".join(_table_text(table, descriptions or {}) for table in tables)


def tables_from_json(entry: Mapping[str, Any]) -> list[Table]:
    """The tables that one entry of Spider's or BIRD's ``tables.json`` declares; it holds no sample values."""
    names = entry["table_names_original"]
    columns = entry["column_names_original"]
    keys = {
        index for key in entry["primary_keys"] for index in (key if isinstance(key, list) else [key])
    }  # BIRD lists the columns of a composite key together
    references: dict[int, list[tuple[str, str]]] = {}
    for index, target in entry["foreign_keys"]:
        table, column = columns[target]
        references.setdefault(index, []).append((names[table], column))
    return [
        Table(
            name,
            tuple(
                Column(column, entry["column_types"][index], index in keys, tuple(references.get(index, ())))
                for index, (owner, column) in enumerate(columns)
                if owner == place
            ),
        )
        for place, name in enumerate(names)
    ]


def with_declared_keys(tables: list[Table], declared: list[Table]) -> list[Table]:
    """The tables of a file with the keys that only ``tables.json`` knows; many Spider files declare none themselves.

    What ``tables.json`` says of tables and columns that the file does not hold is left out.
    """
    names = {table.name.lower(): {column.name.lower() for column in table.columns} for table in tables}
    known = {(table.name.lower(), column.name.lower()): column for table in declared for column in table.columns}

    def merged(table: Table, column: Column) -> Column:
        other = known.get((table.name.lower(), column.name.lower()))
        if other is None:
            return column
        seen = {(to.lower(), key.lower()) for to, key in column.references}
        added = tuple(
            (to, key)
            for to, key in dict.fromkeys(other.references)
            if (to.lower(), key.lower()) not in seen and key.lower() in names.get(to.lower(), ())
        )
        return replace(
            column, primary_key=column.primary_key or other.primary_key, references=column.references + added
        )

    return [Table(table.name, tuple(merged(table, column) for column in table.columns)) for table in tables]


def column_descriptions(folder: Path) -> dict[tuple[str, str], str]:
    """BIRD's ``database_description/<table>.csv`` of one database; empty where there is no such folder."""
    found = {}
    for file in sorted(folder.glob("*.csv")):
        # The official files come in several encodings; their names and keywords are ASCII, so replacing is enough.
        reader = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig", errors="replace"), newline=""))
        for row in reader:
            cells = {
                (key or "").strip().lower(): (value or "") for key, value in row.items() if isinstance(value, str)
            }
            parts = (cells.get("column_description", ""), cells.get("value_description", ""))
            text = _shortened("; ".join(" ".join(part.split()) for part in parts if part.strip()), _DESCRIPTION_LENGTH)
            if text:
                found[file.stem.lower(), cells.get("original_column_name", "").strip().lower()] = text
    return found


def _table_text(table: Table, descriptions: Mapping[tuple[str, str], str]) -> str:
    lines = [f"Table {_name(table.name)}"]
    for column in table.columns:
        parts = [f"{_name(column.name)} ({column.type})" if column.type else _name(column.name)]
        if column.primary_key:
            parts.append("primary key")
        parts += [f"references {_name(to)}.{_name(key)}" for to, key in column.references]
        if column.samples:
            parts.append("e.g. " + ", ".join(map(_literal, column.samples)))
        line = ", ".join(parts)
        description = descriptions.get((table.name.lower(), column.name.lower()))
        lines.append(f"  {line}: {description}" if description else f"  {line}")
    return "\n".join(lines)


def _name(name: str) -> str:
    """A name as a query can use it: in backticks where it is not a plain word."""
    plain = name.isidentifier() and name.isascii() and name.lower() not in _KEYWORDS
    return name if plain else "`" + name.replace("`", "``") + "`"


def _literal(value: str | int | float | bytes) -> str:
    if isinstance(value, bytes):
        return f"x'{value[:8].hex()}{'…' if len(value) > 8 else ''}'"
    if isinstance(value, str):
        return "'" + _shortened(" ".join(value.split()), _SAMPLE_LENGTH).replace("'", "''") + "'"
    return repr(value)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
