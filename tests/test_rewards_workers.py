"""What the execution reward executes: each statement once, in worker processes that stay and are not left behind."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chain import SHOP, cot, make_database
from command import python
from hostile import ENDLESS, STUCK
from pooled import eventually, is_running
from rewarded import GOLD, worth

from excot.errors import ExcotError
from excot.execution import Cache, GoldOutcome, Limits, Task, Verdict, pool, verify_all
from excot.rewards import ExecutionReward


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is handed to the workers, golds marked."""
    statements = []
    verify = pool.Pool.verify_all

    def recorded(self: pool.Pool, tasks: list[Task], cache: Cache | None) -> Iterator[tuple[str, Verdict]]:
        for task in tasks:
            statements.extend((f"gold: {task.gold}", *task.candidates))
        return verify(self, tasks, cache)

    monkeypatch.setattr(pool.Pool, "verify_all", recorded)
    return statements


# ------------------------------------------------------------------------------------------------ what is executed


def test_no_statement_is_executed_twice_in_a_run(reward, executed):
    batch = [cot("SELECT 1"), cot("SELECT 1 ; "), "SELECT 1", cot("SELECT 2"), "no SQL"]
    assert worth(reward, *batch) == [0.1, 0.1, 0.1, 0.1, 0.0]
    assert executed == [f"gold: {GOLD}", "SELECT 1", "SELECT 2"]
    assert worth(reward, *batch) == [0.1, 0.1, 0.1, 0.1, 0.0]
    assert executed == [f"gold: {GOLD}", "SELECT 1", "SELECT 2"]
    assert worth(reward, cot("SELECT 2"), cot("SELECT 3")) == [0.1, 0.1]
    assert executed[3:] == [f"gold: {GOLD}", "SELECT 3"]
    assert worth(reward, cot("SELECT 3"), gold="SELECT 3") == [1.0]  # another question's answer is another matter
    assert executed[5:] == ["gold: SELECT 3", "SELECT 3"]


def test_a_gold_that_is_unusable_is_not_tried_again(reward, executed):
    assert worth(reward, cot("SELECT 1"), gold=ENDLESS) == [None]
    del executed[:]
    assert worth(reward, cot("SELECT 1"), cot("SELECT 2"), gold=ENDLESS) == [None, None]
    assert worth(reward, cot("SELECT 2"), gold=None) == [None]
    assert executed == []


def test_a_timeout_is_waited_for_once(reward):
    worth(reward, cot(ENDLESS))
    began = time.monotonic()
    assert worth(reward, cot(ENDLESS), cot(ENDLESS)) == [0.0, 0.0]
    assert time.monotonic() - began < 0.2


def test_the_cache_holds_what_was_used_last_and_no_more(databases, executed):
    with ExecutionReward(databases, processes=1, cache_size=3) as reward:
        worth(reward, "SELECT 1", "SELECT 2")  # with their gold, three statements
        worth(reward, "SELECT 1")
        worth(reward, "SELECT 3")  # in the place of "SELECT 2"
        del executed[:]
        assert worth(reward, "SELECT 1") == [0.1]
        assert executed == []
        assert worth(reward, "SELECT 2") == [0.1]
        assert executed == [f"gold: {GOLD}", "SELECT 2"]
        worth(reward, *(f"SELECT {number}" for number in range(20)))
        assert len(reward._cache) == 3
        del executed[:]
        assert worth(reward, "SELECT 19") == [0.1]  # its gold's outcome is no longer there
        assert executed == [f"gold: {GOLD}"]


def test_a_gold_that_fails_after_it_has_run_is_no_lesson(reward, monkeypatch, executed):
    assert worth(reward, cot(GOLD)) == [1.0]
    with monkeypatch.context() as patched:
        overloaded = Verdict(GoldOutcome("timeout"), verdict_of(reward, "SELECT 1").candidates)
        patched.setattr(pool.Pool, "verify_all", lambda self, tasks, cache: ((task.id, overloaded) for task in tasks))
        assert worth(reward, cot(GOLD), cot("SELECT name FROM item WHERE id IN (1, 2, 5)")) == [None, None]
    assert worth(reward, cot(GOLD), cot("SELECT name FROM item WHERE id IN (1, 2, 5)")) == [1.0, 1.0]


def verdict_of(reward: ExecutionReward, sql: str) -> Verdict:
    task = Task("q", reward._databases.paths("shop"), GOLD, (sql,), Limits(seconds=1))
    ((_, verdict),) = verify_all([task], 1)
    return verdict


# ------------------------------------------------------------------------------------------------ worker processes


def test_workers_stay_from_one_call_to_the_next_and_are_gone_after_close(databases, started):
    with ExecutionReward(databases, processes=2) as reward:
        assert started == []
        worth(reward, "SELECT 1")
        assert len(started) == 1  # one question, one worker
        for number in range(5):
            reward([f"SELECT {number}"] * 3, ["shop", "zoo", "shop"], ["SELECT 1", "SELECT 2", "SELECT 3"])
        assert len(started) == 2
        assert all(process.poll() is None for _, process in started)
    assert all(process.returncode is not None for _, process in started)
    assert worth(reward, "SELECT 7") == [0.1]  # closed, and used again
    reward.close()
    assert len(started) == 3 and started[2][1].returncode is not None


def test_a_worker_that_is_killed_between_calls_or_in_one_changes_no_reward(databases, started):
    slow = "SELECT count(*) FROM item a, item b, item c, item d, item e, item f, item g, item h WHERE a.id <> {}"
    with ExecutionReward(databases, timeout=30, processes=1) as reward:
        worth(reward, "SELECT 1")
        started[0][1].kill()
        assert worth(reward, cot(GOLD), "SELECT 2", "SELECT x") == [1.0, 0.1, 0.0]
        assert len(started) == 2
        killer = threading.Timer(0.02, lambda: started[-1][1].kill())
        killer.start()
        assert worth(reward, *(slow.format(number) for number in range(20)), cot(GOLD)) == [0.1] * 20 + [1.0]
        killer.join()
        assert len(started) == 3


def test_a_statement_that_sqlite_cannot_interrupt_costs_its_worker_and_no_other_answer(reward, started):
    began = time.monotonic()
    assert worth(reward, cot(GOLD), cot(STUCK), cot("SELECT 1")) == [1.0, 0.0, 0.1]
    assert time.monotonic() - began < 5
    assert worth(reward, cot(GOLD), cot("SELECT 2")) == [1.0, 0.1]
    assert len(started) == 2


def test_after_a_call_that_fails_the_next_one_works(tmp_path, started):
    make_database(tmp_path / "shop.sqlite", SHOP)
    (tmp_path / "bad.sqlite").write_bytes((tmp_path / "shop.sqlite").read_bytes()[:4096] + b"\xff" * 4096)
    with ExecutionReward(tmp_path, processes=2) as reward:
        with pytest.raises(ExcotError, match="malformed"):
            reward(["SELECT 1"] * 2, ["shop", "bad"], [GOLD, "SELECT * FROM item"])
        assert worth(reward, cot(GOLD)) == [1.0]
    assert all(process.returncode is not None for _, process in started)


def program(databases: Path, body: str) -> str:
    return f"""
import os, sys, time
from excot.execution import pool
from excot.rewards import ExecutionReward
reward = ExecutionReward({str(databases)!r}, processes=1)
def call(*answers):
    return reward(list(answers), ["shop"] * len(answers), [{GOLD!r}] * len(answers))
call("SELECT 1")
print(reward._pool._idle[0]._process.pid, flush=True)
{body}
"""


@pytest.mark.parametrize("end", ["by itself", "by SIGKILL"])
def test_a_process_that_ends_without_closing_leaves_no_worker(databases, end):
    body = "time.sleep(60)" if end == "by SIGKILL" else "sys.exit(0)"
    parent = python(program(databases, body))
    pid = int(parent.stdout.readline())
    if end == "by SIGKILL":
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
    _, errors = parent.communicate(timeout=20)
    assert (parent.returncode, errors) == (-signal.SIGKILL if end == "by SIGKILL" else 0, "")
    assert eventually(lambda: not is_running(pid), 5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_of_the_process_has_workers_of_its_own(databases):
    body = f"""
child = os.fork()
if child == 0:
    print(call({GOLD!r}, "SELECT 2"), reward._pool._idle[0]._process.pid, flush=True)
    reward.close()
    os._exit(0)
os.waitpid(child, 0)
print(call({GOLD!r}, "SELECT 3"), reward._pool._idle[0]._process.pid)
"""
    lines = python(program(databases, body)).communicate(timeout=30)[0].splitlines()
    assert lines[1].startswith("[1.0, 0.1] ") and lines[1] != lines[2] == f"[1.0, 0.1] {lines[0]}"


def test_threads_take_turns(reward, started):
    def call(number: int) -> list[float | None]:
        return worth(reward, f"SELECT {number % 7}", "SELECT x", gold=f"SELECT {number % 5}")

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(call, range(70)))
    assert found == [[1.0 if number % 7 == number % 5 else 0.1, 0.0] for number in range(70)]
    assert len(started) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda reward: pickle.loads(pickle.dumps(reward))])
def test_a_copy_is_worth_the_same_and_has_workers_of_its_own(databases, started, copied):
    with ExecutionReward(databases, right=2, executes=1, rule="multiset", timeout=0.3, processes=1) as reward:
        worth(reward, "SELECT 1")
        with copied(reward) as other:
            assert worth(other, cot(GOLD), "SELECT 1", "SELECT x", ENDLESS) == [2, 1, 0.0, 0.0]
            assert len(started) == 2
            assert other.__name__ == "execution_reward"
        assert worth(reward, cot(GOLD)) == [2]
        assert len(started) == 2


def test_a_folder_stays_the_same_when_the_working_directory_changes(databases, tmp_path, monkeypatch):
    monkeypatch.chdir(databases.parent)
    with ExecutionReward(databases.name, processes=1) as reward:
        worth(reward, "SELECT 1")
        monkeypatch.chdir(tmp_path)
        assert reward(["SELECT 4"], ["zoo"], ["SELECT count(*) FROM animal"]) == [1.0]


def test_the_ranks_of_a_machine_share_its_cores(databases, monkeypatch):
    monkeypatch.setattr("excot.rewards.available_cores", lambda: 16)
    for ranks, expected in (("", 16), ("1", 16), ("8", 2), ("64", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert ExecutionReward(databases)._pool._processes == expected
    assert ExecutionReward(databases, processes=3)._pool._processes == 3
