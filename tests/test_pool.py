"""Many questions on several processes: the same verdicts, and an end to statements that are stuck."""

from __future__ import annotations

import mmap
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import STUCK
from pooled import ALL, HASTE, NOTHING, SLOW, in_process, make_numbers, mixed_tasks, verdicts

from excot.execution import pool, work
from excot.execution.compare import Matches
from excot.execution.pool import GRACE, verify_all
from excot.execution.sandbox import Limits
from excot.execution.task import Task
from excot.execution.worker import BEACON_SIZE, read_beacon


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers"))


# ------------------------------------------------------------------------------------------------ the same verdicts


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_and_any_order_give_the_same_verdicts(database, processes):
    tasks = mixed_tasks(database)
    expected = in_process(tasks)
    random.Random(processes).shuffle(tasks)
    assert verdicts(tasks, processes) == expected
    statuses = [outcome.status for outcome in expected["q7"].candidates]
    assert statuses == ["ok", "ok", "ok", "error", "refused", "too_large", "ok", "error"]
    assert expected["q7"].candidates[0].matches == ALL
    assert expected["q7"].candidates[6].matches == Matches(set=True, multiset=True, ordered=True, test_suite=True)
    assert expected["q0"].gold.status == "empty"


def test_no_tasks_no_verdicts_and_no_processes(started):
    assert list(verify_all([], 2)) == []
    assert started == []


def test_no_more_processes_are_started_than_there_are_tasks(database, started):
    tasks = [Task(id, (database,), f"SELECT '{id}'", ("SELECT 1",)) for id in "ab"]
    assert len(list(verify_all(tasks, 8))) == 2
    assert len(started) == 2


def test_a_task_without_candidates_has_a_verdict(database):
    ((id, verdict),) = verify_all([Task("alone", (database,), "SELECT 1", ())], 1)
    assert (id, verdict.gold.status, verdict.candidates) == ("alone", "ok", ())


def test_tasks_are_drawn_ahead_of_the_workers_but_not_without_end(database, monkeypatch):
    monkeypatch.setattr(work, "AHEAD_TASKS", 5)
    drawn = []

    def tasks() -> Iterator[Task]:
        for task in mixed_tasks(database):
            drawn.append(task.id)
            yield task

    for count, _ in enumerate(verify_all(tasks(), 2), start=1):
        assert len(drawn) <= count + 5 + 2
    assert len(drawn) == 20


@pytest.mark.parametrize("processes", [0, -1])
def test_fewer_than_one_process_is_refused(database, processes):
    with pytest.raises(ValueError, match="at least 1"):
        list(verify_all(mixed_tasks(database), processes))


def test_a_worker_imports_what_its_parent_does_and_nothing_from_the_working_directory(tmp_path, monkeypatch, database):
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 always looks into the working directory")
    (tmp_path / "sqlite3.py").write_text("raise SystemExit('the wrong sqlite3')")
    (tmp_path / "excot").mkdir()
    (tmp_path / "excot" / "__init__.py").write_text("raise SystemExit('the wrong excot')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert len(verdicts(mixed_tasks(database)[:1], 1)) == 1


# ------------------------------------------------------------------------------------------------ stuck statements


def test_a_statement_that_sqlite_does_not_interrupt_is_ended_and_its_neighbours_keep_their_results(database):
    candidates = ("SELECT 1.0", STUCK, "SELECT 2", STUCK + ";", "SELECT 1 WHERE 1")
    started = time.monotonic()
    ((_, verdict),) = verify_all([Task("q", (database,), "SELECT 1", candidates, HASTE)], 1)
    assert time.monotonic() - started < 8
    assert [outcome.status for outcome in verdict.candidates] == ["ok", "timeout", "ok", "timeout", "ok"]
    assert [outcome.matches for outcome in verdict.candidates] == [ALL, NOTHING, NOTHING, NOTHING, ALL]
    stuck = verdict.candidates[1]
    assert HASTE.seconds + GRACE <= stuck.seconds < HASTE.seconds + 2
    assert "could not interrupt" in stuck.error
    assert verdict.candidates[3] == stuck  # the same statement: not tried again
    assert verdict.gold.status == "ok"


def test_what_comes_after_a_stuck_statement_is_still_compared_with_the_gold(database):
    gold = SLOW.format(20)  # long enough for its outcome to arrive before the process is ended; its rows never do
    right, wrong = f"{gold} AND 1", f"{gold} AND 0"
    task = Task("q", (database,), gold, (right, STUCK, wrong, right, gold, f"{right} AND 1"), Limits(seconds=2))
    ((_, verdict),) = verify_all([task], 1)
    assert [outcome.status for outcome in verdict.candidates] == ["ok", "timeout", "ok", "ok", "ok", "ok"]
    assert [outcome.matches for outcome in verdict.candidates] == [ALL, NOTHING, NOTHING, ALL, ALL, ALL]


def test_a_stuck_statement_does_not_hold_up_other_questions(database):
    stuck = Task("stuck", (database,), "SELECT 1", (STUCK,), HASTE)
    others = [replace(task, limits=HASTE) for task in mixed_tasks(database)[:5]]
    order = [id for id, _ in verify_all([stuck, *others], 2)]
    assert order[-1] == "stuck" and len(order) == 6


def test_a_gold_that_sqlite_does_not_interrupt_is_a_timeout_and_its_candidates_have_a_status(database):
    task = Task("q", (database,), STUCK, ("SELECT 1", "SELECT x", STUCK, "SELECT n FROM number"), HASTE)
    ((_, verdict),) = verify_all([task], 1)
    assert (verdict.gold.status, verdict.gold.rows) == ("timeout", None)
    assert [outcome.status for outcome in verdict.candidates] == ["ok", "error", "timeout", "ok"]
    assert [outcome.matches for outcome in verdict.candidates] == [NOTHING] * 4


def test_a_sort_of_gigabytes_ends_within_its_limit_and_leaves_the_disk_as_it_was(database):
    sort = "SELECT hex(zeroblob(500000)) || p.n AS x FROM number p, number q ORDER BY x"
    free = shutil.disk_usage(tempfile.gettempdir()).free
    started = time.monotonic()
    ((_, verdict),) = verify_all([Task("q", (database,), "SELECT 1", ("SELECT 1.0", sort), HASTE)], 1)
    assert time.monotonic() - started < HASTE.seconds + 4
    assert [outcome.status for outcome in verdict.candidates][0] == "ok"
    assert verdict.candidates[1].status in ("timeout", "too_large")
    assert shutil.disk_usage(tempfile.gettempdir()).free > free - (1 << 30)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 tells what could not be written since Python 3.11")
def test_a_temporary_file_has_a_limit(database, monkeypatch):
    program = "from excot.execution import worker; worker.TEMPORARY_FILE = 20_000_000; "
    popen = subprocess.Popen

    def limited(arguments, **keywords):
        return popen([*arguments[:-1], program + arguments[-1]], **keywords)

    monkeypatch.setattr(pool.subprocess, "Popen", limited)
    sort = "SELECT hex(zeroblob(500000)) || p.n AS x FROM number p ORDER BY x"
    ((_, verdict),) = verify_all([Task("q", (database,), "SELECT 1", (sort, "SELECT 1.0"), Limits(seconds=20))], 1)
    assert [outcome.status for outcome in verdict.candidates] == ["too_large", "ok"]
    assert verdict.candidates[0].error == "a sort or a temporary index is too large"


def test_a_candidate_that_is_stuck_only_without_its_distinct_is_ended_too(database):
    candidate = STUCK.replace("SELECT instr", "SELECT DISTINCT instr")
    ((_, verdict),) = verify_all([Task("q", (database,), "SELECT 1", (candidate, "SELECT 1.0"), HASTE)], 1)
    assert [outcome.status for outcome in verdict.candidates] == ["timeout", "ok"]


def test_the_beacon_is_never_read_half_written(tmp_path):
    began = time.monotonic()
    (tmp_path / "beacon").write_bytes(bytes(BEACON_SIZE))
    program = f"""
import mmap
from excot.execution.worker import BEACON_SIZE, write_beacon
with open({str(tmp_path / "beacon")!r}, "r+b") as file:
    beacon = mmap.mmap(file.fileno(), BEACON_SIZE)
write_beacon(beacon, 1)
print("writing", flush=True)
while True:
    for place in range(1, 1000):
        write_beacon(beacon, place)
"""
    with open(tmp_path / "beacon", "r+b") as file:
        beacon = mmap.mmap(file.fileno(), BEACON_SIZE)
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        writer.stdout.readline()
        seen = [read_beacon(beacon) for _ in range(200_000)]
    finally:
        writer.kill()
        writer.communicate()
    ended = time.monotonic()
    assert all(0 < place < 1000 and began < started < ended for place, started in seen)
    assert len({place for place, _ in seen}) > 1
