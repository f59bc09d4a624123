"""A sandbox that has been used is as one that is new, whatever it was used for: statements share a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from chain import make_database
from hostile import ENDLESS, HOSTILE
from sandboxed import SCHEMA

from benchmarks.fuzzing.grammar import Grammar
from benchmarks.fuzzing.mutations import Mutations
from excot.execution import describe
from excot.execution import sandbox as sandbox_module
from excot.execution.compare import Row
from excot.execution.sandbox import Limits, Sandbox, TooLarge

LIMITS = Limits(seconds=0.1)
PATIENT = Limits(seconds=30)

# Two thirds of the memory there is, SQLite's as well as a row's.
HALF = "SELECT " + ", ".join(["zeroblob(3900000 + n)"] * 11) + " FROM number LIMIT 1"
PROBES = [
    "SELECT last_insert_rowid(), changes(), total_changes()",
    "SELECT 'A' LIKE 'a', 'A' GLOB 'a', 'A' = 'a' COLLATE NOCASE, 'é' LIKE 'É'",
    "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master",
    "SELECT * FROM sqlite_temp_master",
    "SELECT sql FROM sqlite_stmt",
    "SELECT * FROM t",
    "SELECT * FROM named",
    "SELECT n FROM number",
    "SELECT text, typeof(text), length(text) FROM strange",
    "SELECT body FROM five WHERE five MATCH 'fox'",
    "SELECT rank, highlight(five, 0, '<', '>') FROM five WHERE five MATCH 'fox'",
    "SELECT offsets(three), matchinfo(three, 'nx') FROM three WHERE three MATCH 'quick'",
    "SELECT document.id, value FROM document, json_each(document.json, '$.tags')",
    "SELECT sum(n) OVER (ORDER BY -n), count(*) OVER () FROM number",
    "PRAGMA data_version",
    "SELECT nothing",
    "DROP TABLE t",
    "SELECT zeroblob(4000001)",
    HALF,
]  # fmt: skip
PRAGMAS = """
    application_id automatic_index busy_timeout cache_size cache_spill cell_size_check collation_list data_version
    database_list defer_foreign_keys empty_result_callbacks encoding foreign_keys freelist_count full_column_names
    fullfsync hard_heap_limit ignore_check_constraints journal_mode journal_size_limit legacy_alter_table locking_mode
    mmap_size page_count query_only read_uncommitted recursive_triggers reverse_unordered_selects schema_version
    secure_delete short_column_names soft_heap_limit synchronous temp_store temp_store_directory threads trusted_schema
    user_version wal_autocheckpoint writable_schema
""".split()
LENGTHS = [getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_LIMIT_")]  # from Python 3.11 on


class Opened:
    """A sandbox and the connection that it has opened."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits):
        opened: list[sqlite3.Connection] = []
        connect = sandbox_module.connect
        with monkeypatch.context() as patch:
            patch.setattr(sandbox_module, "connect", lambda path: opened.append(connect(path)) or opened[0])
            self.sandbox = Sandbox(path, limits)
        self.connection = opened[0]

    def probe(self) -> list[tuple[str, Any]]:
        # The same statement under the patience of a test on a busy machine; only the clock is another.
        patient = self.sandbox.limits
        self.sandbox.limits = Limits(**{**vars(patient), "seconds": PATIENT.seconds})
        found = [self.sandbox.run(sql, list) for sql in PROBES]
        self.sandbox.limits = patient
        return [(execution.status, execution.value) for execution in found]

    def settings(self) -> dict[str, Any]:
        """What no statement may ask for, let alone change. The sandbox is none any more afterwards."""
        self.connection.set_authorizer(None)
        found: dict[str, Any] = {name: self.connection.execute(f"PRAGMA {name}").fetchall() for name in PRAGMAS}
        self.sandbox.run("SELECT 1", list)  # what was set for one statement is set anew for the next
        found["limits"] = [self.connection.getlimit(category) for category in LENGTHS]
        found["transaction"] = self.connection.in_transaction, self.connection.total_changes
        found["functions"] = self.connection.execute("SELECT * FROM pragma_function_list").fetchall()
        return found


def take_all(rows: Iterator[Row]) -> int:
    return sum(1 for _ in rows)


def take_one(rows: Iterator[Row]) -> Row | None:
    return next(rows, None)


def refuse(rows: Iterator[Row]) -> None:
    next(rows, None)
    raise TooLarge("enough")


def keep_the_cursor(rows: Iterator[Row]) -> Iterator[Row]:
    next(rows, None)
    return rows


READERS: list[Callable[[Iterator[Row]], Any]] = [take_all, take_one, refuse, keep_the_cursor]


def statements(path: Path, seed: int, count: int) -> Iterator[str]:
    """Fuzzed and hostile ones, in no order; nothing that SQLite does not interrupt in time."""
    random = Random(seed)
    grammar = Grammar(random, describe(path), hurt=0.1)
    mutations = Mutations(random, [grammar.query(2) for _ in range(30)] + PROBES[:-1])
    hostile = [sql.replace("{folder}", str(path.parent)).replace("{{", "{") for sql, _ in HOSTILE.values()]
    for _ in range(count):
        kind = random.random()
        yield random.choice(hostile) if kind < 0.3 else (grammar if kind < 0.7 else mutations).statement()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("leaks") / "x.sqlite", SCHEMA)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_a_statement_reaches_the_next(path, monkeypatch, seed):
    random = Random(seed)
    fresh, used = (Opened(path, monkeypatch, LIMITS) for _ in range(2))
    expected = fresh.probe()
    assert [status for status, _ in expected[-4:]] == ["error", "refused", "too_large", "ok"]
    held = []
    for number, sql in enumerate(statements(path, seed, 160)):
        reader = random.choice(READERS)
        execution = used.sandbox.run(sql, reader)
        if reader is keep_the_cursor:
            held.append(execution.value)
        if number % 16 == 15:
            # The pairs (statement, probe) of sixteen statements at once: which one it was, the seed tells.
            assert dict(zip(PROBES, used.probe(), strict=True)) == dict(zip(PROBES, expected, strict=True)), sql
    for cursor in filter(None, held):
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            next(cursor)
    assert used.settings() == fresh.settings()
    for opened in (fresh, used):
        opened.sandbox.close()


@pytest.mark.parametrize("reader", READERS)
def test_a_statement_that_failed_for_time_or_memory_takes_nothing_from_the_next(path, monkeypatch, reader):
    used = Opened(path, monkeypatch, LIMITS)
    fresh = Opened(path, monkeypatch, LIMITS)
    expected = fresh.probe()
    wide = ", ".join(["hex(zeroblob(1900000 + n))"] * 16)
    doubling, long_list = HOSTILE["common table expressions that double"][0], "1, " * 33_000 + "1"
    for sql in (f"SELECT {wide} FROM number", doubling, f"SELECT 1 IN ({long_list})", HALF, ENDLESS):
        for _ in range(2):
            used.sandbox.run(sql, reader)
        assert used.probe() == expected
    execution = used.sandbox.run(ENDLESS, take_all)
    assert execution.status == "timeout" and execution.seconds >= LIMITS.seconds
    for opened in (fresh, used):
        opened.sandbox.close()
