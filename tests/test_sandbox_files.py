"""A sandbox on a database with other files beside it: logs and journals are read, respected and left as they are."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from chain import make_database
from sandboxed import SCHEMA, contents, rows

from excot.execution.database import DatabaseError
from excot.execution.sandbox import Limits, Sandbox


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
    make_database(tmp_path / "x", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    (tmp_path / "x-journal").write_bytes(b"")
    before = contents(tmp_path)
    sandbox = Sandbox(tmp_path / "x", Limits())
    assert rows(sandbox, "SELECT a FROM t") == [(1,)]
    sandbox.close()
    assert contents(tmp_path) == before


def test_damaged_pages_are_the_databases_fault_and_no_statements(tmp_path):
    path = make_database(tmp_path / "x.sqlite", SCHEMA)
    pages = bytearray(path.read_bytes())
    pages[4096 : 2 * 4096] = b"\xff" * 4096  # the root page of the first table
    path.write_bytes(pages)
    sandbox = Sandbox(path, Limits())
    with pytest.raises(DatabaseError, match=r"x\.sqlite cannot be read \(database disk image is malformed\)"):
        sandbox.run("SELECT * FROM t", list)
    assert sandbox.run("SELECT * FROM nowhere", list).status == "error"
    sandbox.close()
