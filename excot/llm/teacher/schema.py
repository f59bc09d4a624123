"""Read back the schema text of a question: which columns a table has, so that a mistake can pick a plausible one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"(?:`(?P<quoted>(?:[^`]|``)+)`|(?P<bare>[^\s,(:`]+))"
_TYPE = r"\((?P<type>(?:[^()]|\([^()]*\))*)\)"  # one level of parentheses inside: VARCHAR(20)
_TABLE = re.compile(rf"^Table\s+{_NAME}\s*$")
_COLUMN = re.compile(rf"^\s+{_NAME}(?:\s+{_TYPE})?(?P<rest>.*)$")

_LITERAL = r"(?:x?'(?:[^']|'')*'|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_SAMPLES = re.compile(rf", e\.g\. (?P<values>{_LITERAL}(?:, {_LITERAL})*)")


@dataclass(frozen=True)
class Column:
    """One column as the schema text shows it. ``samples`` are SQL literals."""

    name: str
    type: str = ""
    samples: tuple[str, ...] = ()

    @property
    def numeric(self) -> bool:
        return bool(re.search("INT|REAL|NUM|DEC|DOUB|FLOA|YEAR", self.type.upper()))


@dataclass(frozen=True)
class Schema:
    """Tables by lower-case name: their own spelling and their columns. Empty where the text was not understood."""

    names: dict[str, str] = field(default_factory=dict)
    columns: dict[str, tuple[Column, ...]] = field(default_factory=dict)

    def of(self, table: str) -> tuple[Column, ...]:
        """The columns of ``table`` in any case; none where the schema does not know it."""
        return self.columns.get(table.lower(), ())

    def find(self, table: str, column: str) -> Column | None:
        return next((known for known in self.of(table) if known.name.lower() == column.lower()), None)

    def has_column(self, name: str) -> bool:
        return any(known.name.lower() == name.lower() for columns in self.columns.values() for known in columns)


def read_schema(text: str | None) -> Schema:
    """Parse the schema text that the question builders write (``Table name``, then one indented line per column).

    Lines of any other form are passed over: a schema in a form of the user's own only narrows the choice of mistakes.
    """
    names: dict[str, str] = {}
    columns: dict[str, list[Column]] = {}
    current: list[Column] | None = None
    for line in (text or "").splitlines():
        if table := _TABLE.match(line):
            name = _name(table)
            names[name.lower()] = name
            current = columns.setdefault(name.lower(), [])
        elif current is not None and (column := _COLUMN.match(line)):
            listed = _SAMPLES.search(column["rest"])
            values = re.findall(_LITERAL, listed["values"]) if listed else []
            samples = tuple(value for value in values if "…" not in value and value[0] != "x")  # shortened, bytes
            current.append(Column(_name(column), column["type"] or "", samples))
    return Schema(names, {name: tuple(found) for name, found in columns.items()})


def _name(match: re.Match[str]) -> str:
    return match["quoted"].replace("``", "`") if match["quoted"] else match["bare"]
