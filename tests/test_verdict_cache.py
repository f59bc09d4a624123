"""The cache of verdicts: what was executed once is not executed again, and nothing goes wrong when it does."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from chain import make_database
from hostile import ENDLESS
from pooled import make_numbers, mixed_tasks

from excot.execution import Cache, Limits, Measures, Task, Verdict, cache, verify_all
from excot.execution.packing import WORTH_KEEPING


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_numbers(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def verified(tasks: list[Task], folder: Path) -> dict[str, Verdict]:
    with Cache(folder) as opened:
        return dict(verify_all(tasks, 1, opened))


def one(folder: Path, database: Path, gold: str, *candidates: str, seconds: float = 5.0, **options) -> Verdict:
    task = Task("q", (database,), gold, candidates, Limits(seconds=seconds), **options)
    return verified([task], folder)["q"]


# ------------------------------------------------------------------------------------------------ found again


def test_what_was_executed_once_is_not_executed_again(database, folder, started):
    tasks = mixed_tasks(database)
    first = verified(tasks, folder)
    assert len(started) == 1
    assert verified(tasks[::-1], folder) == first  # to the times: they are those of the execution
    assert len(started) == 1


def test_only_new_statements_are_executed_and_those_from_before_stay(database, folder, monkeypatch):
    gold = "SELECT n FROM number"
    first = one(folder, database, gold, "SELECT n FROM number WHERE 1", "SELECT m FROM number")
    second = one(folder, database, gold, "SELECT m FROM number", "SELECT n + 0 FROM number", "SELECT 1")
    assert second.candidates[0] == first.candidates[1] and second.gold == first.gold
    assert [outcome.matches.set for outcome in second.candidates] == [False, True, False]
    monkeypatch.setattr("excot.execution.pool._Worker", None)  # none is needed
    third = one(folder, database, gold, "SELECT 1", "SELECT n FROM number WHERE 1", "SELECT n + 0 FROM number")
    assert third.candidates == (second.candidates[2], first.candidates[0], second.candidates[1])


def test_a_slow_golds_result_is_kept_and_compared_with_again(database, folder):
    gold = "SELECT q.n, CAST(q.n AS TEXT), NULL, 0.5 FROM number p, number q, number r WHERE p.n < 30 GROUP BY q.n"
    assert one(folder, database, gold, "SELECT 1").gold.seconds > WORTH_KEEPING
    opened = Cache(folder)
    entry = sqlite3.connect(opened.path).execute("SELECT length(value) FROM entry").fetchone()
    assert entry[0] > 400
    right, wrong = (f"SELECT n, {text}, NULL, 0.5 FROM number" for text in ("n || ''", "n"))
    verdict = one(folder, database, gold, right, wrong)
    assert [outcome.matches.set for outcome in verdict.candidates] == [True, False]


def test_a_database_is_known_by_its_content_wherever_it_lies(database, folder, tmp_path, started):
    elsewhere = tmp_path / "copy.sqlite"
    elsewhere.write_bytes(database.read_bytes())
    first = one(folder, database, "SELECT count(*) FROM number", "SELECT 400")
    assert one(folder, elsewhere, "SELECT count(*) FROM number", "SELECT 400") == first
    assert len(started) == 1
    with sqlite3.connect(elsewhere) as connection:
        connection.execute("DELETE FROM number WHERE n = 7")
    connection.close()
    changed = one(folder, elsewhere, "SELECT count(*) FROM number", "SELECT 400")
    assert first.candidates[0].matches.set and not changed.candidates[0].matches.set


def test_a_longer_limit_takes_over_all_but_what_ran_out_of_time(database, folder, started):
    slow = ENDLESS.replace("FROM c)", "FROM c WHERE x < 1500000)")  # about a quarter of a second
    candidates = "SELECT 1.0", slow, "SELECT x", "SELECT DISTINCT 1", ENDLESS
    first = one(folder, database, "SELECT 1", *candidates, seconds=0.1)
    assert [outcome.status for outcome in first.candidates] == ["ok", "timeout", "error", "ok", "timeout"]
    second = one(folder, database, "SELECT 1", *candidates, seconds=3)
    assert [outcome.status for outcome in second.candidates] == ["ok", "ok", "error", "ok", "timeout"]
    assert [second.candidates[place] for place in (0, 2, 3)] == [first.candidates[place] for place in (0, 2, 3)]
    executed = len(started)
    assert one(folder, database, "SELECT 1", ENDLESS, seconds=0.1).candidates[0] == second.candidates[4]
    assert len(started) == executed  # what takes too long takes too long for less, too


def test_a_gold_that_ran_out_of_time_says_nothing_under_a_longer_limit(database, folder):
    gold = ENDLESS.replace("FROM c)", "FROM c WHERE x < 3000000)")
    short = one(folder, database, gold, "SELECT 3000000", seconds=0.1)
    assert (short.gold.status, short.candidates[0].matches.set) == ("timeout", False)
    long = one(folder, database, gold, "SELECT 3000000", seconds=20)
    assert (long.gold.status, long.candidates[0].matches.set) == ("ok", True)


def test_other_measures_and_other_limits_are_other_questions(database, folder, started):
    plain = one(folder, database, "SELECT 1", "SELECT 1.0")
    measured = one(folder, database, "SELECT 1", "SELECT 1.0", measures=Measures(fingerprint=True, soft_f1=True))
    assert plain.candidates[0].measured is None and measured.candidates[0].measured.soft_f1 == 1.0
    assert one(folder, database, "SELECT 1", "SELECT 1.0", measures=Measures(True, True)) == measured
    task = Task("q", (database,), "SELECT n FROM number", ("SELECT 1",), Limits(rows=3))
    assert verified([task], folder)["q"].gold.status == "too_large"
    assert verified([replace(task, limits=Limits())], folder)["q"].gold.status == "ok"
    timed = Measures(repetitions=2)
    one(folder, database, "SELECT 2", "SELECT 2.0", measures=timed)
    before = len(started)
    one(folder, database, "SELECT 2", "SELECT 2.0", measures=timed)
    assert len(started) == before + 1  # times are measured when they are asked for


@pytest.mark.parametrize(
    ("candidate", "lasts"),
    [
        ("SELECT random()", False),
        ("SELECT hex(randomblob(4))", False),
        ("SELECT CURRENT_TIMESTAMP", False),
        ("SELECT date()", False),
        ("SELECT julianday( 'NOW' )", False),
        ("SELECT strftime('%Y')", False),
        ("SELECT * FROM today", False),  # a view
        ("SELECT strftime('%Y', '2020-01-01')", True),
        ("SELECT date('2020-01-01', '+1 day') WHERE 'unknown' = 'known'", True),
        ("SELECT count(*) FROM t", True),
    ],
)
def test_what_hangs_on_the_clock_or_on_chance_is_executed_every_time(tmp_path, folder, started, candidate, lasts):
    database = make_database(tmp_path / "x.sqlite", "CREATE TABLE t (a); CREATE VIEW today AS SELECT date('now') AS d")
    for gold, sql in (("SELECT 1", candidate), (candidate, "SELECT 1")):
        started.clear()
        for _ in range(2):
            one(folder, database, gold, sql)
        assert len(started) == (1 if lasts else 2)


def test_a_database_with_a_log_beside_it_is_not_what_its_file_says(database, folder, started):
    writer = sqlite3.connect(database)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("INSERT INTO number VALUES (1000)")
    writer.commit()
    for count in (401, 402):
        assert one(folder, database, "SELECT count(*) FROM number", f"SELECT {count}").candidates[0].matches.set
        writer.execute("INSERT INTO number VALUES (1001)")
        writer.commit()
    writer.close()
    assert len(started) == 2


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("damage", ["noise", "cut", "empty", "text", "newer", "older", "zeros within"])
def test_a_file_that_is_damaged_or_of_another_version_is_begun_anew(database, folder, caplog, damage):
    tasks = mixed_tasks(database)
    first = verified(tasks, folder)
    path = Cache(folder).path
    whole = path.read_bytes()
    if damage in ("newer", "older"):
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {cache._FORMAT + (1 if damage == 'newer' else -1)}")
        connection.execute("ALTER TABLE entry RENAME TO records")
        connection.close()
    else:
        path.write_bytes(
            {
                "noise": whole[:100] + os.urandom(len(whole) - 100),
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "text": b"no cache at all\n" * 1000,
                "zeros within": whole[:8192] + bytes(4096) + whole[12288:],
            }[damage]
        )
    for _ in range(2):
        found = verified(tasks, folder)
        assert {id: [outcome.matches for outcome in verdict.candidates] for id, verdict in found.items()} == {
            id: [outcome.matches for outcome in verdict.candidates] for id, verdict in first.items()
        }
    assert len([record for record in caplog.records if "cache" in record.message]) <= 1
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM entry").fetchone() == (20,)
    connection.close()


def test_an_entry_whose_bytes_have_changed_is_executed_again(database, folder):
    first = one(folder, database, "SELECT 1", "SELECT 1.0")
    connection = sqlite3.connect(Cache(folder).path)
    ((value,),) = connection.execute("SELECT value FROM entry")
    for place in range(0, len(value), 7):
        spoilt = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        connection.execute("UPDATE entry SET value = ?", (spoilt,))
        connection.commit()
        assert one(folder, database, "SELECT 1", "SELECT 1.0").candidates[0].matches == first.candidates[0].matches
    connection.close()


def test_where_nothing_can_be_written_that_is_said_once_and_the_work_goes_on(database, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(verified(mixed_tasks(database), tmp_path / "cache")) == 20
    assert [record.message for record in caplog.records if "going on without it" in record.message] != []
    assert len(caplog.records) == 1


def test_a_process_that_holds_the_file_holds_nobody_up_for_long(database, folder, caplog, monkeypatch):
    verified(mixed_tasks(database)[:1], folder)
    monkeypatch.setattr(cache, "_PATIENCE", 0.1)
    holder = sqlite3.connect(Cache(folder).path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert len(verified(mixed_tasks(database), folder)) == 20
    holder.close()
    assert "held by another process" in caplog.text and len(caplog.records) == 1


def test_it_stays_within_its_size_and_what_was_used_last_stays_longest(database, folder):
    many = [
        Task(f"q{number}", (database,), f"SELECT {number}", tuple(f"SELECT {number} + {n} * 0" for n in range(200)))
        for number in range(120)
    ]
    size = 100_000
    for begin in range(0, 120, 20):
        with Cache(folder, size) as opened:
            assert len(dict(verify_all(many[begin : begin + 20], 1, opened))) == 20
        connection = sqlite3.connect(opened.path)
        connection.execute("UPDATE entry SET day = day - 1")  # the night
        connection.commit()
        connection.close()
        with Cache(folder, size) as opened:
            dict(verify_all(many[:1], 1, opened))
        assert opened.path.stat().st_size < 1.5 * size
    connection = sqlite3.connect(opened.path)
    assert 20 < connection.execute("SELECT count(*) FROM entry").fetchone()[0] < 110
    connection.close()
    with Cache(folder, size) as opened:
        assert next(verify_all(many[:1], 1, opened))
        assert opened.path.stat().st_size < 1.5 * size


# ------------------------------------------------------------------------------------------------ several processes

PROGRAM = """
import sys
from pathlib import Path
from excot.execution import Cache, Task, cache, verify_all
cache._WRITE_EVERY = 0.0
database, folder, begin = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
statements = [(f"SELECT {n // 2}", (f"SELECT {n // 2} + 0", f"SELECT {n}")) for n in range(begin, 200)]
tasks = [Task(str(place), (database,), gold, candidates) for place, (gold, candidates) in enumerate(statements)]
with Cache(folder) as opened:
    for id, verdict in verify_all(tasks, 1, opened):
        assert verdict.candidates[0].matches.set, (id, verdict)
print("done")
"""


def start(database: Path, folder: Path, begin: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(database), str(folder), str(begin)], stdout=subprocess.PIPE, text=True
    )


def test_several_processes_write_at_once_and_nothing_is_lost(database, folder, started):
    running = [start(database, folder, begin) for begin in (0, 50, 100)]
    assert [process.communicate(timeout=120)[0] for process in running] == ["done\n"] * 3
    tasks = [
        Task(str(n), (database,), f"SELECT {n // 2}", (f"SELECT {n // 2} + 0", f"SELECT {n}")) for n in range(200)
    ]
    assert len(verified(tasks, folder)) == 200
    assert started == []


def test_a_process_that_is_killed_while_it_writes_leaves_what_others_can_use(database, folder):
    for delay in (0.3, 0.5, 0.7, 0.9):
        process = start(database, folder, 0)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(database, folder, 0)
    assert process.communicate(timeout=120)[0] == "done\n"
