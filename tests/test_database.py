"""Finding databases, refusing bad ones in one line, and leaving all of them as they are."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from excot.execution import file_hash
from excot.execution.database import (
    DatabaseError,
    Databases,
    MissingDatabase,
    connect,
    describe,
)
from excot.execution.sandbox import Limits, Sandbox


def make(path: Path, script: str = "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return path


# ------------------------------------------------------------------------------------------------ finding


def test_a_database_has_a_folder_of_its_own_or_is_a_file_in_the_folder(tmp_path):
    nested = make(tmp_path / "concert" / "concert.sqlite")
    flat = make(tmp_path / "pets.sqlite")
    databases = Databases(tmp_path)
    assert databases.paths("concert") == (nested,)
    assert databases.paths("pets") == (flat,)
    make(tmp_path / "concert.sqlite")
    assert databases.paths("concert") == (nested,)


def test_further_instances_in_the_folder_come_after_the_main_file_in_a_fixed_order(tmp_path):
    folder = tmp_path / "concert"
    main = make(folder / "concert.sqlite")
    others = [make(folder / f"concert_{name}.sqlite") for name in ("b", "a", "10", "2")]
    for name in ("schema.sql", "._concert.sqlite", "concert.sqlite-wal", "concert.sqlite.bak"):
        (folder / name).write_bytes(b"")
    assert Databases(tmp_path).paths("concert") == (main, *sorted(others))


def test_other_databases_beside_a_flat_file_are_no_instances_of_it(tmp_path):
    pets = make(tmp_path / "pets.sqlite")
    make(tmp_path / "pets_2.sqlite")
    assert Databases(tmp_path).paths("pets") == (pets,)


NO_DB_IDS = [
    "nowhere",
    "",
    ".",
    "..",
    "../secret",
    "a/b",
    "/etc/passwd",
    "x" * 300,
    "nul\0",
    "*",
    "\ud800",
    "concert ",
]


@pytest.mark.parametrize("db_id", NO_DB_IDS)
def test_a_db_id_that_names_no_database_is_missing_whatever_it_is(tmp_path, db_id):
    databases = tmp_path / "databases"
    make(databases / "concert" / "concert.sqlite")
    for trap in ("secret.sqlite", "...sqlite", "databases/.sqlite"):  # where a careless join of paths would end up
        make(tmp_path / trap)
    with pytest.raises(MissingDatabase) as raised:
        Databases(databases).paths(db_id)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("db_id", ["with space", "a'b", "a?mode=rwc", "a#b", "a%20b", "[a]*", "çé", "a&b;c", "-rf"])
def test_any_name_that_a_file_can_have_can_be_a_db_id(tmp_path, db_id):
    make(tmp_path / db_id / f"{db_id}.sqlite")
    make(tmp_path / "a" / "a.sqlite", "CREATE TABLE wrong (a)")
    (path,) = Databases(tmp_path).paths(db_id)
    assert [table.name for table in describe(path)] == ["t"]
    assert sorted(os.listdir(tmp_path)) == sorted({"a", db_id})


def test_a_file_name_that_is_not_utf8_can_be_opened(tmp_path):
    try:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.sqlite"))
        path.write_bytes(make(tmp_path / "x.sqlite").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert [table.name for table in describe(path)] == ["t"]


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    make(tmp_path / "x.sqlite")
    monkeypatch.chdir(tmp_path)
    assert describe("x.sqlite") == describe(tmp_path / "x.sqlite")


def test_a_missing_folder_is_said_at_once(tmp_path):
    with pytest.raises(DatabaseError, match="no such databases folder"):
        Databases(tmp_path / "nowhere")
    with pytest.raises(DatabaseError, match="no such databases folder"):
        Databases(make(tmp_path / "x.sqlite"))


# ------------------------------------------------------------------------------------------------ bad files


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def web_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html>\n<html>404</html>")


def lfs_pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def header_only(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def noise_behind_the_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xa5" * 8176)


def first_page_overwritten(path: Path) -> None:
    pages = bytearray(make(path).read_bytes())
    pages[100:4096] = b"\xff" * 3996
    path.write_bytes(pages)


def schema_overwritten(path: Path) -> None:
    path.write_bytes(make(path).read_bytes().replace(b"CREATE TABLE t", b"CREATE TALBE t"))


BAD = {
    folder: "is a folder",
    empty: "is empty (0 bytes)",
    web_page: "is not a SQLite file (it begins with '<!DOCTYPE html>",
    lfs_pointer: "is not a SQLite file (it begins with 'version https://",
    header_only: "cannot be read (",
    noise_behind_the_header: "cannot be read (",
    first_page_overwritten: "cannot be read (database disk image is malformed)",
    schema_overwritten: "cannot be read (malformed database schema",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("use", [connect, describe, lambda path: Sandbox(path, Limits())])
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, spoil, use):
    path = tmp_path / "bad.sqlite"
    spoil(path)
    with pytest.raises(DatabaseError) as raised:
        use(path)
    assert BAD[spoil] in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.remedy
    assert not isinstance(raised.value, MissingDatabase)
    assert [found.name for found in tmp_path.iterdir()] == ["bad.sqlite"]


@pytest.mark.parametrize("use", [connect, describe, lambda path: Sandbox(path, Limits())])
def test_a_missing_database_is_not_created_empty(tmp_path, use):
    with pytest.raises(MissingDatabase, match="does not exist"):
        use(tmp_path / "missing.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused_in_one_line(tmp_path):
    path = make(tmp_path / "x.sqlite")
    path.chmod(0)
    with pytest.raises(DatabaseError, match="cannot be read .*Permission denied"):
        connect(path)


MANY_ROWS = """
    CREATE TABLE before (a); INSERT INTO before VALUES (1);
    CREATE TABLE t (a, b);
    WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
    INSERT INTO t SELECT n, hex(randomblob(50)) FROM c
"""


def test_damage_in_the_middle_is_found_by_who_reads_there(tmp_path):
    path = make(tmp_path / "x.sqlite", MANY_ROWS)
    pages = path.read_bytes()
    assert len(pages) > 30 * 4096
    path.write_bytes(pages[: 3 * 4096] + b"\xff" * 4096 * 27 + pages[30 * 4096 :])
    with pytest.raises(DatabaseError, match="malformed"):
        describe(path)
    sandbox = Sandbox(path, Limits())
    assert sandbox.run("SELECT a FROM before", list).value == [(1,)]
    with pytest.raises(DatabaseError, match="malformed"):
        sandbox.run("SELECT count(*) FROM t", list)
    sandbox.close()


def test_a_file_cut_short_is_damaged(tmp_path):
    path = make(tmp_path / "x.sqlite", MANY_ROWS)
    path.write_bytes(path.read_bytes()[: 10 * 4096])
    with pytest.raises(DatabaseError, match="cannot be read"):
        describe(path)


def test_a_connection_writes_nothing_whatever_it_is_told(tmp_path):
    path = make(tmp_path / "x.sqlite")
    before = file_hash(path)
    connection = connect(path)
    for sql in (
        "DELETE FROM t",
        "CREATE TABLE u (a)",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = WAL",
        "VACUUM",
    ):
        try:
            connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            pass
    connection.close()
    assert file_hash(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["x.sqlite"]


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
