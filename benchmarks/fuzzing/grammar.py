"""Statements at random over the schema of a real database: most of them run, and a good share of them hurts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import TypeVar

from excot.execution import Table

from .bombs import BOMBS

T = TypeVar("T")
Scope = tuple[str, ...]
"""The columns that an expression may name, each as it would write them."""

NUMBERS = """
    0 1 -1 2 3 7 10 255 4096 65537 1000000 2000000000 9223372036854775807 -9223372036854775808 9223372036854775808
    0x7fffffffffffffff 0.5 -0.0 1e308 9e999 -9e999 1e-320
""".split()
LITERALS = [
    *NUMBERS, *NUMBERS, "NULL", "TRUE", "FALSE", "CURRENT_DATE", "CURRENT_TIMESTAMP", "''", "'a'", "'%'", "'_%'",
    "'[a-'", "'A''b'", "'1'", "'1e5'", "' 12abc'", "'0x1F'", "'now'", "'2020-02-30'", "'+1000000 years'", "'%s'",
    "'%999999d'", "'%.*c'", "'{}'", "'[1,2,{\"a\":[]}]'", "'[1,2,{\"a\":[]}]'", "'$'", "'$.a[0]'", "'$[#-1]'", "x''",
    "x'00'", "x'ff00'", "x'53514c69746520666f726d617420330000'", "'é漢🦆'", "char(0, 65535, 128512)", "zeroblob(64)",
    "random()",
]  # fmt: skip
OPERATORS = """
    + - * / % || || & | << >> < <= > >= = = == <> != IS IS-NOT AND AND OR OR LIKE LIKE GLOB REGEXP MATCH -> ->>
""".split()
COLLATIONS = "BINARY NOCASE RTRIM nowhere".split()
TYPES = ["INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "VARCHAR(10)", "ANY", "unheard of (1, 2)"]
LIMITS = "0 1 1 3 3 10 10 100 1000 -1 9223372036854775807 1e3 'x'".split()
AGGREGATES = "count sum total avg min max group_concat json_group_array".split()
WINDOWS = """
    row_number() rank() dense_rank() percent_rank() cume_dist() ntile({}) lag({},{}) lead({}) first_value({})
    last_value({}) nth_value({},{}) sum({}) count(*) group_concat({})
""".split()
FRAMES = [
    "",
    "ROWS UNBOUNDED PRECEDING",
    "ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING",
    "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES",
    "RANGE BETWEEN 1e10 PRECEDING AND CURRENT ROW",
    "GROUPS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW",
    "ROWS BETWEEN -1 PRECEDING AND 9223372036854775807 FOLLOWING",
]
TABLE_FUNCTIONS = [
    "json_each({})",
    "json_tree({}, '$')",
    "pragma_table_info('{}')",
    "pragma_function_list",
    "sqlite_master",
    "sqlite_temp_master",
    "sqlite_stmt",
    "dbstat",
    "fts3tokenize('simple', {})",
]
# Statements that are no queries; {t} is a table, {c} a column, {e} an expression, {q} a query.
OTHERS = """
    INSERT INTO {t} SELECT * FROM {t} | INSERT INTO {t} DEFAULT VALUES RETURNING *
    REPLACE INTO {t} VALUES ({e}) | UPDATE {t} SET {c} = {e} WHERE {e} | UPDATE {t} SET {c} = {e} RETURNING {e}
    DELETE FROM {t} | DELETE FROM {t} RETURNING * | WITH w AS ({q}) DELETE FROM {t}
    WITH w AS ({q}) INSERT INTO {t} SELECT * FROM w | UPDATE sqlite_master SET sql = {e}
    INSERT INTO {t} VALUES ({e}) ON CONFLICT DO UPDATE SET {c} = {e} | DELETE FROM sqlite_sequence
    DROP TABLE {t} | CREATE TABLE x AS {q} | CREATE TEMP TABLE {t} AS {q} | CREATE VIEW x AS {q}
    CREATE TEMP VIEW {t} AS {q} | DROP TABLE IF EXISTS x | CREATE INDEX i ON {t} ({c})
    CREATE TEMP TRIGGER g AFTER INSERT ON {t} BEGIN SELECT 1; END | CREATE VIRTUAL TABLE x USING fts5(y)
    CREATE TABLE IF NOT EXISTS {t} (a) | CREATE VIRTUAL TABLE temp.x USING rtree(a, b, c)
    ALTER TABLE {t} RENAME TO x | ALTER TABLE {t} DROP COLUMN {c} | PRAGMA journal_mode = WAL
    PRAGMA writable_schema = 1 | PRAGMA case_sensitive_like = 1 | PRAGMA recursive_triggers = 1
    PRAGMA temp_store = 2 | PRAGMA cache_size = 100000000 | PRAGMA hard_heap_limit = 1 | PRAGMA user_version
    PRAGMA reverse_unordered_selects = 1 | PRAGMA query_only = 0 | PRAGMA encoding = 'UTF-16'
    PRAGMA mmap_size = 1000000000 | PRAGMA optimize | PRAGMA integrity_check | PRAGMA foreign_keys = 1
    PRAGMA temp_store_directory = '.' | PRAGMA data_version | PRAGMA data_version = 3 | ATTACH ':memory:' AS x
    ATTACH 'stolen.sqlite' AS x | DETACH main | VACUUM | VACUUM INTO 'stolen.sqlite' | ANALYZE | REINDEX {t}
    BEGIN | BEGIN IMMEDIATE | COMMIT | ROLLBACK | SAVEPOINT s | RELEASE s | END | EXPLAIN {q}
    EXPLAIN QUERY PLAN {q} | EXPLAIN DELETE FROM {t} | SELECT load_extension({e})
    SELECT fts3_tokenizer('simple') | {q}; {q} | {q}; DROP TABLE {t} | DROP TABLE {t}; {q} | ;; | ;{q} | -- {q}
    /* {q} | {q} -- {q} | SELECT ?, :a, @b, $c FROM {t} | {t} | {e} | VALUES ({e}), ({e}) | TABLE {t} | ({q})
    SELECT * FROM {t} FOR UPDATE | SELECT * FROM generate_series(1, 1000000000) | SELECT * FROM sqlite_dbpage
    SELECT * FROM bytecode('{q}') | {q}; ;
""".replace("\n", " | ").split(" | ")[1:-1]


class Grammar:
    """Makes statements.

    Args:
        random: where all choices come from: the same state gives the same statements.
        tables: the schema, as `excot.execution.describe` gives it.
        hurt: the share of statements that are made to take all the time or memory there is.
    """

    def __init__(self, random: Random, tables: Sequence[Table], hurt: float = 0.06):
        self._random, self._hurt = random, hurt
        self._tables = [table for table in tables if table.columns]
        self._functions = _functions()
        self._aliases = 0

    def statement(self) -> str:
        kind = self._random.random()
        if kind < self._hurt:
            text = self._pick(BOMBS)(self._random, self.table())
        elif kind < self._hurt + 0.14:
            text = self._other()
        else:
            text = self.query(self._random.choice((1, 2, 2, 3)))
        return self._dressed(text)

    def table(self) -> str:
        return self._quoted(self._pick(self._tables).name)

    def query(self, depth: int, width: int = 0, outer: Scope = ()) -> str:
        """A query with ``width`` columns (some number where it is 0) that may name columns of those around it."""
        width = width or self._pick((1, 1, 1, 2, 3, 6))
        kind = self._random.random() if depth > 0 else 1
        if kind < 0.07:
            operator = self._pick(("UNION", "UNION ALL", "EXCEPT", "INTERSECT"))
            left, right = (self._select(depth - 1, width, outer, tail=False) for _ in range(2))
            return f"{left} {operator} {right} {self._tail(())}".rstrip()
        if kind < 0.15:
            name = self._alias()
            columns = ", ".join(f"c{number}" for number in range(width))
            body = self.query(depth - 1, width)
            materialized = self._pick(("", "", "MATERIALIZED ", "NOT MATERIALIZED "))
            return f"WITH {name}({columns}) AS {materialized}({body}) SELECT * FROM {name} {self._tail(())}"
        if kind < 0.19:
            steps = ", ".join(["c0 + 1"] + [self.expression(1, ("c0",)) for _ in range(width - 1)])
            starts = ", ".join(["1"] + [self.expression(1, ()) for _ in range(width - 1)])
            columns = ", ".join(f"c{number}" for number in range(width))
            union, end = self._pick(("UNION", "UNION ALL")), self._pick((5, 100, 3000))
            return (
                f"WITH RECURSIVE r({columns}) AS (SELECT {starts} {union} SELECT {steps} FROM r WHERE c0 < {end}) "
                f"SELECT * FROM r"
            )
        if kind < 0.22:
            row = "(" + ", ".join(self.expression(1, outer) for _ in range(width)) + ")"
            return f"VALUES {row}, {row}"
        return self._select(depth, width, outer)

    def expression(self, depth: int, scope: Scope) -> str:
        kind = self._random.random() if depth > 0 else self._random.random() * 0.3
        inner = lambda: self.expression(depth - 1, scope)  # noqa: E731
        if kind < 0.2 and scope:
            return self._pick(scope)
        if kind < 0.3:
            return self._pick(LITERALS)
        if kind < 0.5:
            return f"({inner()} {self._pick(OPERATORS).replace('-NOT', ' NOT')} {inner()})"
        if kind < 0.75:
            name, arguments = self._pick(self._functions)
            count = arguments if arguments >= 0 else self._random.randrange(1, 5)
            return f"{name}({', '.join(inner() for _ in range(count))})"
        if kind < 0.79:
            return f"CASE WHEN {inner()} THEN {inner()} ELSE {inner()} END"
        if kind < 0.83:
            return f"CAST({inner()} AS {self._pick(TYPES)})"
        if kind < 0.86:
            return f"{self._pick(('-', '+', '~', 'NOT '))}({inner()})"
        if kind < 0.88:
            return f"({inner()} COLLATE {self._pick(COLLATIONS)})"
        if kind < 0.91:
            return f"{inner()} BETWEEN {inner()} AND {inner()}"
        if kind < 0.94:
            return f"{inner()} {self._pick(('IN', 'NOT IN'))} ({self.query(depth - 1, 1, scope)})"
        if kind < 0.96:
            return f"{inner()} IN ({inner()}, {inner()}, {inner()})"
        if kind < 0.98:
            return f"EXISTS ({self.query(depth - 1, 1, scope)})"
        return f"({self.query(depth - 1, 1, scope)})"

    def _select(self, depth: int, width: int, outer: Scope, tail: bool = True) -> str:
        source, scope = self._source(depth)
        visible = scope + outer
        grouped = self._random.random() < 0.2
        columns, rest = [], ""
        for number in range(width):
            column = self.expression(min(depth, 2), visible)
            if grouped and self._random.random() < 0.6:
                column = f"{self._pick(AGGREGATES)}({self._pick(('', '', 'DISTINCT '))}{column})"
            elif not grouped and self._random.random() < 0.1:
                column = self._window(visible)
            columns.append(f"{column} AS c{number}")
        if self._random.random() < 0.5:
            rest += f" WHERE {self.expression(depth, visible)}"
        if grouped:
            rest += f" GROUP BY {self.expression(1, visible)} || ''"
            if self._random.random() < 0.3:
                rest += f" HAVING {self._pick(AGGREGATES)}({self.expression(1, visible)})"
        distinct = self._pick(("", "", "", "DISTINCT "))
        end = self._tail(visible) if tail else ""
        return f"SELECT {distinct}{', '.join(columns)} FROM {source}{rest} {end}".rstrip()

    def _tail(self, scope: Scope) -> str:
        tail = ""
        if self._random.random() < 0.25:
            order = self._pick(("1", "1", "1 COLLATE NOCASE", f"{self.expression(1, scope)} || ''"))
            tail += f"ORDER BY {order} "
            tail += self._pick(("", "DESC", "ASC NULLS LAST")) + " "
        if self._random.random() < 0.25:
            tail += f"LIMIT {self._pick(LIMITS)} " + (f"OFFSET {self._pick(LIMITS)}" if self._pick((0, 1)) else "")
        return tail

    def _source(self, depth: int) -> tuple[str, Scope]:
        text, scope = "", ()
        for number in range(self._pick((1, 1, 1, 2, 2, 3)) if depth > 0 else 1):
            one, columns = self._one_source(depth)
            scope += columns
            if number:
                join = self._pick((",", "JOIN", "JOIN", "LEFT JOIN", "CROSS JOIN", "FULL JOIN", "NATURAL JOIN"))
                condition = join in ("JOIN", "LEFT JOIN", "FULL JOIN")
                text += f" {join} {one}" + (f" ON {self.expression(1, scope)}" if condition else "")
            else:
                text = one
        return text, scope

    def _one_source(self, depth: int) -> tuple[str, Scope]:
        kind, name = self._random.random(), self._alias()
        if depth > 0 and kind < 0.15:
            width = self._pick((1, 2, 3))
            return f"({self._select(depth - 1, width, ())}) {name}", tuple(f"{name}.c{k}" for k in range(width))
        if kind < 0.2:
            table = self._pick(TABLE_FUNCTIONS).replace("{}", self._pick(LITERALS).replace("{", ""))
            return f"{table} {name}", (f"{name}.rowid", *((f"{name}.value",) if "json" in table else ()))
        table = self._pick(self._tables)
        columns = tuple(f"{name}.{self._quoted(column.name)}" for column in table.columns)
        return f"{self._quoted(table.name)} AS {name}", columns

    def _window(self, scope: Scope) -> str:
        function = self._pick(WINDOWS)
        while "{}" in function:
            function = function.replace("{}", self.expression(1, scope), 1)
        partition = f"PARTITION BY {self.expression(1, scope)}" if self._pick((0, 1)) else ""
        return f"{function} OVER ({partition} ORDER BY {self.expression(1, scope)} {self._pick(FRAMES)})"

    def _other(self) -> str:
        text = self._pick(OTHERS)
        parts: dict[str, Callable[[], str]] = {
            "{t}": self.table,
            "{c}": lambda: self._quoted(self._pick(self._pick(self._tables).columns).name),
            "{e}": lambda: self.expression(2, ()),
            "{q}": lambda: self.query(1),
        }
        for mark, make in parts.items():
            while mark in text:
                text = text.replace(mark, make(), 1)
        return text

    def _dressed(self, text: str) -> str:
        kind = self._random.random()
        if kind < 0.04:
            return f"/* {self._pick(LITERALS)} */ {text} -- {self._pick(LITERALS)}"
        if kind < 0.08:
            return text.replace(" ", self._pick(("\n", "\t", "  ", "/**/", "\r\n", "\f")))
        return text + self._pick(("", "", ";", " ; ", "\n"))

    def _quoted(self, name: str) -> str:
        opening, closing = self._pick(('""', '""', "``", "[]"))
        return opening + name.replace(closing, closing * 2) + closing

    def _alias(self) -> str:
        self._aliases += 1
        return f"a{self._aliases % 1000}"

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[self._random.randrange(len(choices))]


@cache
def _functions() -> list[tuple[str, int]]:
    """Every function of this SQLite with its number of arguments, -1 for any."""
    connection = sqlite3.connect(":memory:")
    try:
        found = connection.execute("SELECT DISTINCT name, narg FROM pragma_function_list WHERE type = 's'").fetchall()
    finally:
        connection.close()
    return sorted((name, count) for name, count in found if name.isidentifier())
