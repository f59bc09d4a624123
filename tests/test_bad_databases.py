"""Databases that are bad from the start or go bad while they are used: one line that says so, and no verdict lost."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from chain import make_database

from excot.execution import (
    DatabaseError,
    Limits,
    Sandbox,
    Task,
    connect,
    describe,
    signature,
    verify_all,
)

ROWS = """
    CREATE TABLE before (a); INSERT INTO before VALUES (1);
    CREATE TABLE t (a, b);
    WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000)
    INSERT INTO t SELECT n, hex(zeroblob(50)) FROM c
"""
LARGE = ROWS.replace("zeroblob(50)", "zeroblob(1000)")  # more than SQLite keeps in memory
PAGE = 4096


def task(id: str, path: Path, seconds: float = 20) -> Task:
    gold = f"SELECT count(*), sum(a), max(b), '{id}' FROM t"
    return Task(id, (path,), gold, (f"{gold} WHERE 1", "SELECT 1", "SELECT nothing"), Limits(seconds=seconds))


RIGHT = [("ok", True), ("ok", False), ("error", False)]


def until_it_fails(
    tasks: Iterable[Task], after_the_first: Callable[[], object] = lambda: None
) -> tuple[dict[str, list[tuple[str, bool]]], DatabaseError | None]:
    """The candidates' outcomes by task, and the error that the run ended with, if it did."""
    found = {}
    try:
        for id, verdict in verify_all(tasks, 1):
            if not found:
                after_the_first()
            found[id] = [(outcome.status, outcome.matches.set) for outcome in verdict.candidates]
    except DatabaseError as error:
        return found, error
    return found, None


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def no_sqlite(path: Path) -> None:
    path.write_text("id,name\n1,Ann\n")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def truncated(path: Path) -> None:
    make_database(path, ROWS)
    os.truncate(path, 10 * PAGE)


def truncated_in_its_first_page(path: Path) -> None:
    make_database(path, ROWS)
    os.truncate(path, 700)


def damaged_pages(path: Path) -> None:
    data = make_database(path, ROWS).read_bytes()
    path.write_bytes(data[: 3 * PAGE] + b"\xff" * (27 * PAGE) + data[30 * PAGE :])


def hot_journal(path: Path) -> None:
    """A writer that died half-way: the journal beside the file would have to be played back."""
    other = path.with_name("other")
    writer = sqlite3.connect(make_database(other, ROWS), isolation_level=None)
    writer.executescript("PRAGMA cache_size = 5; BEGIN; UPDATE t SET b = 'y' || b")
    for suffix in ("", "-journal"):
        shutil.copy(f"{other}{suffix}", f"{path}{suffix}")
    writer.close()
    other.unlink()


BAD = {
    folder: "is a folder",
    empty: "is empty (0 bytes)",
    no_sqlite: "is not a SQLite file (it begins with 'id,name",
    pipe: "is no regular file (mode prw",
    device: "is no regular file (mode crw",
    loop: "cannot be read (Too many levels of symbolic links)",
    dangling: "does not exist",
    below_a_file: "cannot be read (Not a directory)",
    truncated: "cannot be read (database disk image is malformed)",
    truncated_in_its_first_page: "cannot be read (",
    damaged_pages: "cannot be read (database disk image is malformed)",
    hot_journal: "cannot be read (",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_database_is_one_line_in_the_end_and_holds_up_no_other(tmp_path, spoil):
    good, bad = make_database(tmp_path / "good.sqlite", ROWS), tmp_path / "bad" / "bad.sqlite"
    bad.parent.mkdir()
    try:
        spoil(bad)
    except (AttributeError, PermissionError):
        pytest.skip("this system has no such files")
    names = sorted(os.listdir(bad.parent)) if bad.parent.is_dir() else []
    started = time.monotonic()
    found, error = until_it_fails([task("good", good), task("bad", bad), task("after", good)])
    assert BAD[spoil] in str(error) and str(bad) in str(error) and "\n" not in str(error)
    assert found == {"good": RIGHT, "after": RIGHT}
    assert time.monotonic() - started < 10
    assert (sorted(os.listdir(bad.parent)) if bad.parent.is_dir() else []) == names
    with pytest.raises(DatabaseError):
        describe(bad)


@pytest.mark.parametrize(
    "name",
    ["a?mode=rwc", "a#b", "a%20b", "100%", "a&immutable=0", "é 漢字 🦆", "'quoted'", "-rf", "a\nb", "file:x", "~"],
)
def test_any_name_that_a_file_can_have_can_be_verified_on(tmp_path, name, monkeypatch):
    make_database(tmp_path / f"{name}.sqlite", ROWS)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / f"{name}.sqlite", Path(f"{name}.sqlite")):
        ((_, verdict),) = verify_all([task("q", path)], 1)
        assert [outcome.matches.set for outcome in verdict.candidates] == [True, False, False]
    assert os.listdir(tmp_path) == [f"{name}.sqlite"]


def test_a_file_that_may_not_be_read_is_said_with_the_remedy(tmp_path):
    """Where root runs the tests, who may read all, somebody else looks at the file."""
    path = make_database(tmp_path / "x.sqlite", ROWS)
    path.chmod(0)
    program = "import os, sys\n" + (
        "from excot.execution import DatabaseError, connect\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: connect(sys.argv[1])\n"
        "except DatabaseError as error: print(error)"
    )
    for parent in tmp_path.parents[:3]:
        if parent.stat().st_uid == os.geteuid() and parent.name:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    result = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
    assert result.stdout == f"database {path} cannot be read (Permission denied): check its permissions\n", result


def test_a_database_that_somebody_has_locked_is_nobodys_wrong_answer(tmp_path):
    path = make_database(tmp_path / "x.sqlite", ROWS)
    path.with_name("x.sqlite-journal").touch()  # as while somebody writes: the file is not taken for one at rest
    sandbox = Sandbox(path, Limits(seconds=0.2))
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(DatabaseError, match=r"x\.sqlite cannot be read \(database is locked\)"):
        sandbox.run("SELECT * FROM t", list)
    assert time.monotonic() - started < 2
    writer.close()
    assert sandbox.run("SELECT count(*) FROM t", list).value == [(3000,)]
    sandbox.close()


# ------------------------------------------------------------------------------------------------ during the run


def cut(path: Path) -> None:
    os.truncate(path, 5 * PAGE)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\xa5" * path.stat().st_size)


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    os.replace(make_database(path.with_name("new"), "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 2)"), path)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [cut, emptied, overwritten, deleted, replaced, replaced_by_a_folder])
def test_a_database_that_goes_bad_during_the_run_costs_no_other_and_makes_no_wrong_verdict(tmp_path, spoil):
    good, path = make_database(tmp_path / "good.sqlite", ROWS), make_database(tmp_path / "x.sqlite", LARGE)
    tasks = [task("other", good), *(task(str(number), path) for number in range(40))]
    found, error = until_it_fails(tasks, after_the_first=lambda: spoil(path))  # the largest database comes first
    state = "disappeared" if spoil is deleted else "changed|cannot be read|is empty"
    assert re.search(rf"{path} has ({state})|{path} ({state})", str(error)) and "\n" not in str(error)
    assert "0" in found and "other" in found and len(found) < 41
    assert all(outcomes == RIGHT for outcomes in found.values())


def test_several_bad_databases_are_said_in_one_line(tmp_path):
    good = make_database(tmp_path / "good.sqlite", ROWS)
    bad = [tmp_path / f"{name}.sqlite" for name in "abc"]
    for path in bad:
        path.touch()
    found, error = until_it_fails([*(task(path.stem, path) for path in bad), task("good", good)])
    assert found == {"good": RIGHT}
    assert "(and 2 more databases: " in str(error) and "\n" not in str(error)
    assert all(str(path) in str(error) for path in bad) and error.remedy == "copy or unpack the file again"


CHANGES: dict[str, Callable[[Path], object]] = {
    "appended": lambda path: path.open("ab").write(b"x"),
    "same size": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "cut": cut,
    "replaced": replaced,
    "replaced by a copy with its times": lambda path: os.replace(shutil.copy2(path, f"{path}.new"), path),
    "times set back": lambda path: (
        before := path.stat(),
        path.write_bytes(path.read_bytes()[::-1]),
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_signature_tells_a_change_and_reading_is_none(tmp_path, change):
    path = make_database(tmp_path / "x.sqlite", ROWS)
    before = signature(path)
    connect(path).close()
    describe(path)
    assert signature(path) == before
    time.sleep(0.02)  # a file system's clock may stand still for a moment
    CHANGES[change](path)
    assert signature(path) != before


def test_a_log_beside_a_database_is_part_of_its_signature(tmp_path):
    path = make_database(tmp_path / "x.sqlite", ROWS)
    before = signature(path)
    path.with_name("x.sqlite-wal").write_bytes(b"x")
    assert signature(path) not in (before, None)
    assert signature(tmp_path / "nowhere") is None
    assert signature(tmp_path / "nul\0") is None
