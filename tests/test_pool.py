"""Many questions on several processes: the same verdicts whatever happens to the processes."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from excot.errors import ExcotError
from excot.execution import pool
from excot.execution.compare import Matches
from excot.execution.database import DatabaseError, MissingDatabase
from excot.execution.pool import GRACE, verify_all
from excot.execution.sandbox import Limits
from excot.execution.verify import GOLD, Task, Verdict, Verifier
from excot.execution.worker import ADDRESS_SPACE, BEACON_SIZE, STARTING, TEMPORARY_FILE, read_beacon

ALL, NOTHING = Matches(True, True, True, True), Matches()
HASTE = Limits(seconds=0.3)

# Many seconds inside one call of one SQLite function, during which SQLite never asks for the time.
STUCK = "SELECT instr(replace(hex(zeroblob(2400000)), '0', 'a'), replace(hex(zeroblob(1200000)), '0', 'a') || 'b')"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
SLOW = "SELECT count(*) FROM number p, number q, number r WHERE p.n < {}"  # 10 ms for every 1 that is added


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "numbers.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE number (n)")
    connection.executemany("INSERT INTO number VALUES (?)", [(number,) for number in range(400)])
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def started(monkeypatch) -> list[pool._Worker]:
    """Every worker at each of its processes' starts: ``(worker, process)`` pairs in the order of starting."""
    pairs = []
    start = pool._Worker._start

    def recorded(worker):
        start(worker)
        pairs.append((worker, worker._process))

    monkeypatch.setattr(pool._Worker, "_start", recorded)
    return pairs


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not yet fetched by its parent does not count."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def without_times(verdict: Verdict) -> Verdict:
    return Verdict(
        replace(verdict.gold, seconds=0), tuple(replace(outcome, seconds=0) for outcome in verdict.candidates)
    )


def verdicts(tasks: list[Task], processes: int) -> dict[str, Verdict]:
    return {id: without_times(verdict) for id, verdict in verify_all(tasks, processes)}


def mixed_tasks(database: Path) -> list[Task]:
    """Twenty questions whose candidates are right, wrong, broken, forbidden and too slow."""
    return [
        Task(
            id=f"q{number}",
            databases=(database,),
            gold=f"SELECT n FROM number WHERE n < {number}",
            candidates=(
                f"SELECT n FROM number WHERE NOT n >= {number}",
                f"SELECT n FROM number WHERE n <= {number}",
                f"SELECT n FROM number WHERE n < {number}",
                "SELECT m FROM number",
                "DROP TABLE number",
                "SELECT zeroblob(2000000000)",
                f"SELECT DISTINCT n FROM number WHERE n < {number} ORDER BY n DESC",
                "SELECT m FROM number;",
            ),
            limits=Limits(seconds=30),
        )
        for number in range(20)
    ]


def in_process(tasks: list[Task]) -> dict[str, Verdict]:
    verifier = Verifier()
    found = {}
    for task in tasks:
        outcomes = dict(verifier.verify(task))
        found[task.id] = without_times(
            Verdict(outcomes[GOLD], tuple(outcomes[place] for place in range(len(task.candidates))))
        )
    verifier.close()
    return found


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
    assert len(list(verify_all(mixed_tasks(database)[:2], 8))) == 2
    assert len(started) == 2


def test_a_task_without_candidates_has_a_verdict(database):
    ((id, verdict),) = verify_all([Task("alone", (database,), "SELECT 1", ())], 1)
    assert (id, verdict.gold.status, verdict.candidates) == ("alone", "ok", ())


def test_tasks_are_drawn_only_as_workers_come_free(database):
    drawn = []

    def tasks() -> Iterator[Task]:
        for task in mixed_tasks(database):
            drawn.append(task.id)
            yield task

    for count, _ in enumerate(verify_all(tasks(), 2), start=1):
        assert len(drawn) <= count + 1
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
    assert all_gone(started)


def test_a_generator_that_is_closed_early_leaves_no_process_behind(database, started):
    found = verify_all(mixed_tasks(database) + [Task("q", (database,), STUCK, (), Limits(seconds=30))], 2)
    next(found)
    assert not all_gone(started)
    found.close()
    assert all_gone(started)


def test_tasks_that_fail_to_come_are_raised_and_leave_no_process_behind(database, started):
    def tasks() -> Iterator[Task]:
        yield from mixed_tasks(database)[:3]
        raise OSError("the file of questions is gone")

    with pytest.raises(OSError, match="questions"):
        list(verify_all(tasks(), 2))
    assert all_gone(started)


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
