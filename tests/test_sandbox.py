"""What may be read, a hundred statements that mean harm, and the limits that hold them."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from chain import make_database
from hostile import CROSS, ENDLESS, HOSTILE
from sandboxed import SCHEMA, contents, rows

from excot.execution import sandbox as sandbox_module
from excot.execution.database import connect
from excot.execution.sandbox import Execution, Limits, Sandbox, TooLarge

HASTE, PATIENCE = 0.3, 30.0  # s
HAS_SETLIMIT = hasattr(sqlite3.Connection, "setlimit")  # Python 3.11


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_database(tmp_path_factory.mktemp("hostile") / "hostile.sqlite", SCHEMA)


@pytest.fixture(scope="module")
def sandbox(database):
    """One sandbox for all these statements, so that what one leaves behind would meet the next."""
    sandbox = Sandbox(database, Limits(seconds=PATIENCE))
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def hasty(database):
    """As `sandbox`, for statements that never end."""
    sandbox = Sandbox(database, Limits(seconds=HASTE))
    yield sandbox
    sandbox.close()


# ------------------------------------------------------------------------------------------------ what may be read


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT a, b FROM t ORDER BY a", [(1, "one"), (2, "Two"), (3, "three")]),
        ("SELECT c FROM t ORDER BY a", [(b"\x00\xff",), (None,), (b"",)]),
        ("SELECT name FROM named WHERE a = 2", [("TWO",)]),
        ("SELECT value FROM document, json_each(document.json, '$.tags')", [("x",), ("y",)]),
        ("SELECT json_extract(json, '$.tags[1]') FROM document", [("y",), (None,)]),
        ("SELECT body FROM five WHERE five MATCH 'quick'", [("the quick brown fox",)]),
        ("SELECT snippet(five, 0, '[', ']', '', 2) FROM five WHERE five MATCH 'dog'", [("lazy [dog]",)]),
        ("SELECT body FROM three WHERE three MATCH 'lazy'", [("lazy dog",)]),
        ("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2) SELECT n FROM c", [(1,), (2,)]),
        ("SELECT a, sum(a) OVER (ORDER BY a) FROM t", [(1, 1), (2, 3), (3, 6)]),
        ("VALUES (1), (2)", [(1,), (2,)]),
        ("SELECT [a] 'alias' FROM `t` WHERE \"a\" = 1; -- the end", [(1,)]),
        ("SELECT 9223372036854775807, 9223372036854775808", [(2**63 - 1, 2.0**63)]),
        ("SELECT count(*) FROM sqlite_master WHERE type = 'view'", [(2,)]),
        ("SELECT * FROM t WHERE a > 9", []),
    ],
)  # fmt: skip
def test_everything_that_only_reads_is_allowed(sandbox, sql, expected):
    assert rows(sandbox, sql) == expected


def test_text_that_is_not_utf8_is_read_with_replacement_characters(sandbox):
    assert rows(sandbox, "SELECT text FROM strange") == [("cao\ufffd",), ("\ufffd",), ("plain",), ("a\0b",)]
    assert rows(sandbox, "SELECT text || '' FROM strange") == rows(sandbox, "SELECT text FROM strange")


@pytest.mark.parametrize("row", [1, 2, 300])
def test_a_message_that_quotes_text_that_is_not_utf8_is_an_error_like_any_other(sandbox, row):
    path = f"CASE n WHEN {row} THEN CAST(x'24ff' AS TEXT) ELSE '$' END"
    assert sandbox.run(f"SELECT json_extract('{{}}', {path}) FROM number", list).status == "error"


def test_a_reader_may_stop_early_and_the_next_statement_runs(sandbox):
    assert sandbox.run("SELECT a FROM t ORDER BY a", next).value == (1,)
    assert rows(sandbox, "SELECT count(*) FROM t") == [(3,)]


def test_a_sandbox_may_be_used_from_another_thread_and_several_at_once(database):
    found: list[Execution] = []

    def count(sandbox: Sandbox) -> None:
        for _ in range(20):
            found.append(sandbox.run("SELECT count(*) FROM number x, number y", list))

    sandboxes = [Sandbox(database, Limits(seconds=PATIENCE)) for _ in range(3)]
    threads = [threading.Thread(target=count, args=(sandbox,)) for sandbox in sandboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sandbox in sandboxes:
        sandbox.close()
    assert [execution.value for execution in found] == [[(90_000,)]] * 60


# ------------------------------------------------------------------------------------------------ what does harm

# What a statement could leave behind in a connection, each seen by one of these.
PROBES = [
    "SELECT last_insert_rowid(), changes(), total_changes()",
    "SELECT 'A' LIKE 'a', 'A' GLOB 'a'",
    "SELECT type, name, sql FROM sqlite_master ORDER BY rowid",
    "SELECT * FROM sqlite_temp_master",
    "SELECT a, b, c FROM t",
    "SELECT count(*), sum(n) FROM number",
    "SELECT body FROM five WHERE five MATCH 'fox'",
    "SELECT body FROM three WHERE three MATCH 'fox'",
    "PRAGMA data_version",
]


def take(rows) -> int:
    return sum(1 for _ in rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_harm_is_named_for_what_it_is_and_leaves_nothing_behind(name, sandbox, hasty, database):
    sql, expected = HOSTILE[name]
    sql = sql.replace("{folder}", str(database.parent)).replace("{{", "{")
    sandbox = hasty if expected == "timeout" else sandbox
    files, state = contents(database.parent), [rows(sandbox, probe) for probe in PROBES]
    execution = sandbox.run(sql, take)
    assert execution.status in expected.split(" or "), execution.error
    assert (execution.error is None) == (execution.value is not None) == (execution.status == "ok")
    if expected == "timeout":
        assert HASTE <= execution.seconds < HASTE + 2  # a busy machine may need the two seconds
    assert [rows(sandbox, probe) for probe in PROBES] == state
    assert contents(database.parent) == files


def test_the_hostile_statements_are_many_and_every_status_occurs_among_them():
    assert len(HOSTILE) > 100
    assert {status for _, status in HOSTILE.values()} >= {"ok", "error", "timeout", "too_large", "refused"}


def test_a_refusal_says_what_was_refused(sandbox):
    assert sandbox.run("DROP TABLE t", list).error == "not authorized (delete)"
    assert sandbox.run("PRAGMA user_version = 3", list).error == "not authorized (pragma)"
    assert "load_extension" in sandbox.run("SELECT load_extension('x')", list).error


def test_what_a_full_text_table_is_refused_by_itself_is_not_held_against_the_statement(database):
    sandbox = Sandbox(database, Limits())  # where nobody has opened the table yet
    assert sandbox.run("SELECT * FROM three WHERE three MATCH 'a (('", list).status == "error"
    sandbox.close()


@pytest.mark.parametrize("function", ["readfile", "writefile", "edit"])
def test_functions_of_the_sqlite_shell_are_refused_where_a_library_has_them(monkeypatch, database, function):
    def connect_with_function(path):
        connection = connect(path)
        connection.create_function(function, -1, lambda *arguments: "harm")
        return connection

    monkeypatch.setattr(sandbox_module, "connect", connect_with_function)
    sandbox = Sandbox(database, Limits())
    assert sandbox.run(f"SELECT {function.upper()}('x')", list).status == "refused"
    sandbox.close()


def test_a_statement_does_not_see_the_ones_before_it(sandbox):
    rows(sandbox, "SELECT body FROM five WHERE five MATCH 'fox'")  # statements of the table's own stay prepared
    for sql in ("SELECT a.sql FROM sqlite_stmt AS a", 'SELECT count(*) FROM "Sqlite_Stmt"'):
        execution = sandbox.run(sql, list)
        if execution.status == "error":
            assert "no such table" in execution.error  # not in every build of SQLite
        else:
            assert (execution.status, execution.error.endswith(" (read)")) == ("refused", True)


# A word of SQLite's own in a statement's text comes back in the message, and must not be taken for SQLite's word.
WORDS = [
    "malformed",
    "database disk image is malformed",
    "disk I/O error",
    "unable to open database file",
    "file is not a database",
    "interrupted",
    "out of memory",
    "string or blob too big",
    "not authorized",
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("sql", ["SELECT [{}] FROM t", "SELECT * FROM [{}]", "SELECT json('{}')", "SELECT 1 FROM {}"])
def test_a_statement_that_quotes_an_error_message_is_only_wrong(sandbox, word, sql):
    assert sandbox.run(sql.format(word), list).status == "error"


# ------------------------------------------------------------------------------------------------ limits


def test_a_timeout_says_how_long_the_statement_had(hasty):
    assert hasty.run(ENDLESS, list).error == "more than 0.3 s"


def test_reading_slowly_counts_as_time(hasty):
    def read_slowly(rows):
        for _ in rows:
            time.sleep(0.001)

    assert hasty.run(f"SELECT p.n FROM {CROSS}", read_slowly).status == "timeout"


def test_every_statement_has_the_whole_time_for_itself(database):
    sandbox = Sandbox(database, Limits(seconds=0.5))
    for _ in range(4):
        assert sandbox.run("SELECT count(*) FROM t", lambda rows: time.sleep(0.2)).status == "ok"
    sandbox.close()


@pytest.mark.skipif(not HAS_SETLIMIT, reason="Python 3.10 cannot limit the length of a value")
def test_a_value_may_be_as_long_as_its_limit(database):
    sandbox = Sandbox(database, Limits(value_bytes=1_000))
    assert sandbox.run("SELECT zeroblob(900)", list).status == "ok"
    assert sandbox.run("SELECT zeroblob(1001)", list).status == "too_large"
    assert sandbox.run("SELECT hex(zeroblob(600))", list).status == "too_large"
    sandbox.close()


def test_a_statement_may_be_as_long_as_its_limit(database):
    sandbox = Sandbox(database, Limits(sql_bytes=100))
    statement = "SELECT '{}'"
    assert sandbox.run(statement.format("x" * 90), list).status == "ok"
    assert sandbox.run(statement.format("x" * 92), list).status == "too_large"
    if HAS_SETLIMIT:  # in bytes, not in characters
        assert sandbox.run(statement.format("é" * 90), list).status == "too_large"
    sandbox.close()


def test_a_reader_may_refuse_to_keep_more(sandbox):
    def refuse(rows):
        raise TooLarge("enough")

    execution = sandbox.run("SELECT 1", refuse)
    assert (execution.status, execution.error, execution.value) == ("too_large", "enough", None)


def test_a_reader_that_fails_for_a_reason_of_its_own_is_heard(sandbox):
    def fail(rows):
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        sandbox.run("SELECT 1", fail)
    assert rows(sandbox, "SELECT 1") == [(1,)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed under Linux only")
def test_a_large_sort_goes_to_files_without_a_name(sandbox):
    def temporary_files(rows) -> set[str]:
        next(rows)
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return {os.readlink(link) for link in links if os.path.lexists(link) and "etilqs" in os.readlink(link)}

    sql = "SELECT hex(zeroblob(200)) || p.n AS x FROM number p, number q ORDER BY x"
    execution = sandbox.run(sql, temporary_files)
    assert execution.status == "ok"
    assert execution.value
    assert all(name.endswith(" (deleted)") for name in execution.value)


def test_ctrl_c_during_a_statement_is_no_timeout(database):
    sandbox = Sandbox(database, Limits(seconds=20))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run(ENDLESS, list)
    timer.join()
    assert sandbox.run("SELECT 1", list).value == [(1,)]
    sandbox.close()
