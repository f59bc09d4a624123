"""What becomes of the pool's workers: a killed one is replaced, none is left behind, and each has its limits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hostile import ENDLESS, STUCK
from pooled import ALL, NOTHING, SLOW, eventually, in_process, is_running, make_numbers, mixed_tasks, verdicts

from excot.errors import ExcotError
from excot.execution import pool
from excot.execution.database import DatabaseError, MissingDatabase
from excot.execution.pool import verify_all
from excot.execution.sandbox import Limits
from excot.execution.task import GOLD, Task
from excot.execution.worker import ADDRESS_SPACE, STARTING, TEMPORARY_FILE, read_beacon


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers"))


# ------------------------------------------------------------------------------------------------ killed workers


def kill_when(started: list, count: int, condition: Callable[[int], bool]) -> threading.Thread:
    """Kill ``count`` processes in all, each as soon as the beacon of its worker shows a place that is asked for."""

    def watch() -> None:
        killed = 0
        deadline = time.monotonic() + 30
        while killed < count and time.monotonic() < deadline:
            for worker, process in list(started):
                try:
                    place = read_beacon(worker._beacon)[0] if worker._ready else STARTING
                except ValueError:  # closed: the worker is being replaced
                    continue
                if worker._process is process and process.returncode is None and condition(place):
                    process.kill()
                    killed += 1
                    started.remove((worker, process))
            time.sleep(0.001)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def slow_tasks(database: Path, count: int = 3) -> list[Task]:
    return [
        Task(
            id=f"slow {number}",
            databases=(database,),
            gold=SLOW.format(number),
            candidates=tuple(
                SLOW.format(other) + f" AND {place} = {place}" for place, other in enumerate([2, 0, 1, 3])
            ),
            limits=Limits(seconds=30),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("place", [STARTING, GOLD, 0, 2, 3])
def test_a_worker_killed_in_the_middle_changes_no_verdict(database, started, place):
    tasks = slow_tasks(database)
    expected = in_process(tasks)
    assert {outcome.matches for verdict in expected.values() for outcome in verdict.candidates} == {ALL, NOTHING}
    killer = kill_when(started, 1, lambda shown: shown == place)
    assert verdicts(tasks, 2) == expected
    killer.join()
    assert len(started) == 2  # two at first, one in place of the one that was killed


def test_workers_killed_at_any_moment_change_no_verdict(database, started):
    tasks = slow_tasks(database, 6)
    expected = in_process(tasks)
    chance = random.Random(1)
    killer = kill_when(started, 4, lambda shown: shown != STARTING and chance.random() < 0.02)
    found = verdicts(tasks, 2)
    killer.join(0.1)
    assert found.keys() == expected.keys()
    # By the rule, what two of the four killings have met is an error; everything else is as it would have been.
    doubtful = [id for id, verdict in found.items() if "two worker processes died" in str(verdict)]
    assert len(doubtful) <= 2
    for id in doubtful:
        del found[id], expected[id]
    assert found == expected


def test_a_statement_that_kills_its_worker_every_time_is_an_error_and_the_others_live(database, started):
    task = Task(
        "q", (database,), "SELECT 1", ("SELECT 1.0", ENDLESS, "SELECT 2", "SELECT 1 WHERE 1"), Limits(seconds=20)
    )
    killer = kill_when(started, 2, lambda place: place == 1)
    ((_, verdict),) = verify_all([task], 1)
    killer.join()
    assert [outcome.status for outcome in verdict.candidates] == ["ok", "error", "ok", "ok"]
    assert [outcome.matches for outcome in verdict.candidates] == [ALL, NOTHING, NOTHING, ALL]
    assert "two worker processes died" in verdict.candidates[1].error
    assert verdict.gold.status == "ok"


def test_a_gold_that_kills_its_worker_every_time_is_an_error(database, started):
    task = Task("q", (database,), ENDLESS, ("SELECT 1", "SELECT x"), Limits(seconds=20))
    killer = kill_when(started, 2, lambda place: place == GOLD)
    ((_, verdict),) = verify_all([task], 1)
    killer.join()
    assert verdict.gold.status == "error"
    assert [outcome.status for outcome in verdict.candidates] == ["ok", "error"]


@pytest.mark.parametrize(("death", "status"), [("os._exit(7)", 7), ("(_ for _ in ()).throw(MemoryError)", 1)])
def test_workers_that_die_whatever_they_are_given_end_the_run(database, monkeypatch, death, status):
    program = f"import os; from excot.execution import worker; worker.Verifier.verify = lambda *_: {death}; "
    popen = subprocess.Popen

    def sabotaged(arguments, **keywords):
        return popen([*arguments[:-1], program + arguments[-1]], **keywords)

    monkeypatch.setattr(pool.subprocess, "Popen", sabotaged)
    with pytest.raises(ExcotError, match=rf"keep dying at question q0 \(exit status {status}\)"):
        list(verify_all(mixed_tasks(database), 1))


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_workers_that_cannot_be_started_are_said_in_one_line(database, monkeypatch, executable):
    monkeypatch.setattr(pool.sys, "executable", executable)
    with pytest.raises(ExcotError, match="a worker process could not be started"):
        list(verify_all(mixed_tasks(database), 2))


# ------------------------------------------------------------------------------------------------ nothing left behind


def all_gone(started: list) -> bool:
    return bool(started) and all(process.returncode is not None for _, process in started)


def test_a_damaged_database_is_raised_and_leaves_no_process_behind(database, tmp_path, started):
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(database.read_bytes()[:4096] + b"\xff" * 8192)
    tasks = [
        *mixed_tasks(database)[:3],
        Task("bad", (path,), "SELECT * FROM number", ("SELECT 1",)),
        *slow_tasks(database),
    ]
    with pytest.raises(DatabaseError, match="malformed") as raised:
        list(verify_all(tasks, 2))
    assert raised.value.problem and raised.value.remedy and "\n" not in str(raised.value)
    assert all_gone(started)


def test_a_missing_database_is_raised_as_such(database, tmp_path, started):
    with pytest.raises(MissingDatabase, match="does not exist"):
        list(verify_all([Task("bad", (tmp_path / "missing.sqlite",), "SELECT 1", ())], 1))
    assert all_gone(started)


def test_a_mistake_of_the_caller_is_raised_as_in_this_process(database, started):
    task = Task("bad", (database,), "SELECT 1", ("SELECT 1", None))
    for run in (lambda: in_process([task]), lambda: list(verify_all([task], 1))):
        with pytest.raises(AttributeError):
            run()
    assert started == []


def test_a_generator_that_is_closed_early_leaves_no_process_behind(database, started):
    found = verify_all(mixed_tasks(database) + [Task("q", (database,), STUCK, (), Limits(seconds=30))], 2)
    next(found)
    assert not all_gone(started)
    found.close()
    assert all_gone(started)


def test_tasks_that_fail_to_come_are_raised_after_those_that_came_and_leave_no_process_behind(database, started):
    def tasks() -> Iterator[Task]:
        yield from mixed_tasks(database)[:3]
        raise OSError("the file of questions is gone")

    found = []
    with pytest.raises(OSError, match="questions"):
        found.extend(verify_all(tasks(), 2))
    assert all_gone(started)
    assert {id for id, _ in found} == {"q0", "q1", "q2"}


def script(database: Path, body: str) -> list[str]:
    program = f"""
import os, resource, subprocess, sys, time
from pathlib import Path
from excot.execution import Limits, Task, verify_all
STUCK = {STUCK!r}
database = Path({str(database)!r})
{body}
"""
    return [sys.executable, "-c", program]


@pytest.mark.parametrize("candidate", ["'SELECT 1'", "STUCK"])
def test_a_parent_that_is_killed_leaves_no_process_behind(database, candidate):
    body = f"""
popen = subprocess.Popen
def announced(*arguments, **keywords):
    process = popen(*arguments, **keywords)
    print(process.pid, flush=True)
    return process
subprocess.Popen = announced
for _ in verify_all([Task("q", (database,), "SELECT 1", ({candidate},), Limits(seconds=60))], 1):
    print("waiting", flush=True)
    sys.stdin.read()
"""
    parent = subprocess.Popen(
        script(database, body), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    if candidate == "STUCK":
        time.sleep(0.5)  # by now it is stuck, and for many seconds more
    else:
        parent.stdout.readline()
    assert is_running(pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert eventually(lambda: not is_running(pid), 5)


CTRL_C = {
    "while a statement is executed": """
print("started", flush=True)
try:
    list(verify_all([Task("q", (database,), STUCK, (), Limits(seconds=60))], 2))
except KeyboardInterrupt:
    sys.exit("interrupted")
""",
    "while the workers wait": """
for _ in verify_all([Task(id, (database,), "SELECT 1", ()) for id in "abc"], 2):
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)  # time enough for a worker to complain
        sys.exit("interrupted")
""",
}


@pytest.mark.parametrize("moment", CTRL_C)
def test_ctrl_c_ends_parent_and_workers_without_a_word_of_theirs(database, moment):
    parent = subprocess.Popen(
        script(database, CTRL_C[moment]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    parent.stdout.readline()
    time.sleep(0.7)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does it: to every process of the group
    _, errors = parent.communicate(timeout=10)
    assert errors == "interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(parent.pid, 0)


# ------------------------------------------------------------------------------------------------ memory


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="limits of processes are listed under Linux only")
def test_a_worker_limits_its_memory_and_its_files(database, started):
    found = verify_all(mixed_tasks(database), 1)
    next(found)
    ((_, process),) = started
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    found.close()
    hard = {line[:26].strip(): line.split()[-2] for line in limits}
    assert hard["Max address space"] == str(ADDRESS_SPACE)
    assert hard["Max core file size"] == "0"
    assert hard["Max file size"] == (str(TEMPORARY_FILE) if sys.version_info >= (3, 11) else "unlimited")


MEBIBYTE = 1024  # in the unit of ru_maxrss under Linux


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
@pytest.mark.parametrize(
    ("candidate", "expected", "most"),
    [
        ("SELECT 1 FROM number p, number q, number r WHERE r.n < 63", ("ok", 10_080_000, True), 60 * MEBIBYTE),
        ("SELECT 2 FROM number p, number q, number r WHERE r.n < 63 ORDER BY p.n", ("ok", 1, False), 60 * MEBIBYTE),
    ],
    ids=["read", "sorted"],
)
def test_ten_million_rows_cost_no_more_memory_than_allowed(database, candidate, expected, most):
    body = f"""
task = Task("q", (database,), "SELECT 1", ({candidate!r},), Limits(seconds=60))
for _, verdict in verify_all([task], 1):
    (outcome,) = verdict.candidates
print((outcome.status, outcome.rows, outcome.matches.set))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
    finished = subprocess.run(script(database, body), capture_output=True, text=True)
    outcome, kilobytes = finished.stdout.splitlines()
    assert outcome == str(expected)
    assert int(kilobytes) < most
