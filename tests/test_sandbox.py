"""A hundred statements that mean harm, and the limits that hold them."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hostile import CROSS, ENDLESS, HOSTILE

from excot.execution import sandbox as sandbox_module
from excot.execution.database import DatabaseError, connect
from excot.execution.sandbox import Execution, Limits, Sandbox, TooLarge

HASTE, PATIENCE = 0.3, 30.0  # s
HAS_SETLIMIT = hasattr(sqlite3.Connection, "setlimit")  # Python 3.11

SCHEMA = """
    CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c BLOB);
    INSERT INTO t VALUES (1, 'one', x'00ff'), (2, 'Two', NULL), (3, 'three', x'');
    CREATE TABLE number (n);
    WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300) INSERT INTO number SELECT n FROM c;
    CREATE TABLE strange (text TEXT);
    INSERT INTO strange VALUES (CAST(x'63616fe9' AS TEXT)), (CAST(x'ff' AS TEXT)), ('plain'), ('a' || char(0) || 'b');
    CREATE TABLE document (id INTEGER PRIMARY KEY, json TEXT);
    INSERT INTO document VALUES (1, '{"tags": ["x", "y"]}'), (2, '{"tags": []}');
    CREATE VIEW named AS SELECT a, upper(b) AS name FROM t;
    CREATE INDEX by_b ON t (b);
    CREATE TRIGGER after_delete AFTER DELETE ON t BEGIN DELETE FROM number; END;
    CREATE VIRTUAL TABLE five USING fts5 (body);
    INSERT INTO five VALUES ('the quick brown fox'), ('lazy dog');
    CREATE VIRTUAL TABLE three USING fts3 (body);
    INSERT INTO three VALUES ('the quick brown fox'), ('lazy dog');
"""


def make(path: Path, schema: str = SCHEMA) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(schema)
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("hostile") / "hostile.sqlite")


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


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def rows(sandbox: Sandbox, sql: str) -> list[tuple]:
    execution = sandbox.run(sql, list)
    assert execution.status == "ok", execution.error
    return execution.value


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
        ("SELECT count(*) FROM sqlite_master WHERE type = 'view'", [(1,)]),
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
    rows(sandbox, "SELECT 'the gold' FROM t")
    execution = sandbox.run("SELECT sql FROM sqlite_stmt", list)
    if execution.status == "error":
        pytest.skip("this SQLite has no table sqlite_stmt")
    assert not any("the gold" in sql for (sql,) in execution.value)


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
    assert hasty.run(f"{ENDLESS} SELECT count(*) FROM c", list).error == "more than 0.3 s"


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
        sandbox.run(f"{ENDLESS} SELECT count(*) FROM c", list)
    timer.join()
    assert sandbox.run("SELECT 1", list).value == [(1,)]
    sandbox.close()


# ------------------------------------------------------------------------------------------------ other files


@pytest.fixture
def written_ahead(tmp_path):
    """A database whose newest row stands in its write-ahead log only; its writer is still at work."""
    folder = tmp_path / "ahead"
    folder.mkdir()
    writer = sqlite3.connect(folder / "w.sqlite", isolation_level=None)
    writer.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    writer.execute("INSERT INTO t VALUES (2)")
    yield folder / "w.sqlite"
    writer.close()


@pytest.mark.parametrize("with_index", [True, False])
def test_a_write_ahead_log_is_read_and_stays_as_it_is(written_ahead, tmp_path, with_index):
    folder = tmp_path / "copy"
    folder.mkdir()
    for suffix in ("", "-wal", "-shm")[: 3 if with_index else 2]:
        shutil.copy(f"{written_ahead}{suffix}", folder)
    before = contents(folder)
    sandbox = Sandbox(folder / "w.sqlite", Limits())
    assert rows(sandbox, "SELECT a FROM t") == [(1,), (2,)]
    assert sandbox.run("INSERT INTO t VALUES (3)", list).status == "refused"
    sandbox.close()
    after = contents(folder)
    for name in ("w.sqlite", "w.sqlite-wal"):
        assert after[name] == before[name]
    assert set(after) <= {"w.sqlite", "w.sqlite-wal", "w.sqlite-shm"}


def test_a_database_that_is_being_written_can_be_read(written_ahead):
    sandbox = Sandbox(written_ahead, Limits())
    assert rows(sandbox, "SELECT a FROM t") == [(1,), (2,)]
    sandbox.close()


def test_a_database_in_write_ahead_mode_without_a_log_gets_no_new_files(written_ahead, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(written_ahead, folder)
    before = contents(folder)
    sandbox = Sandbox(folder / "w.sqlite", Limits())
    assert rows(sandbox, "SELECT a FROM t") == [(1,)]
    sandbox.close()
    assert contents(folder) == before


def test_a_database_whose_writer_died_half_way_is_refused_and_left_alone(tmp_path):
    writer = sqlite3.connect(tmp_path / "x", isolation_level=None)
    writer.executescript("CREATE TABLE t (a); BEGIN")
    writer.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
    writer.execute("COMMIT")
    writer.executescript("PRAGMA cache_size = 5; BEGIN; UPDATE t SET a = 'y' || a")
    folder = tmp_path / "died"
    folder.mkdir()
    for suffix in ("", "-journal"):
        shutil.copy(tmp_path / f"x{suffix}", folder)
    writer.close()
    before = contents(folder)
    with pytest.raises(DatabaseError, match="cannot be read"):
        Sandbox(folder / "x", Limits())
    assert contents(folder) == before


def test_a_journal_that_has_been_dealt_with_does_no_harm(tmp_path):
    make(tmp_path / "x", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    (tmp_path / "x-journal").write_bytes(b"")
    before = contents(tmp_path)
    sandbox = Sandbox(tmp_path / "x", Limits())
    assert rows(sandbox, "SELECT a FROM t") == [(1,)]
    sandbox.close()
    assert contents(tmp_path) == before


def test_damaged_pages_are_the_databases_fault_and_no_statements(tmp_path):
    path = make(tmp_path / "x.sqlite")
    pages = bytearray(path.read_bytes())
    pages[4096 : 2 * 4096] = b"\xff" * 4096  # the root page of the first table
    path.write_bytes(pages)
    sandbox = Sandbox(path, Limits())
    with pytest.raises(DatabaseError, match=r"x\.sqlite cannot be read \(database disk image is malformed\)"):
        sandbox.run("SELECT * FROM t", list)
    assert sandbox.run("SELECT * FROM nowhere", list).status == "error"
    sandbox.close()
