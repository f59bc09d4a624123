"""Rewards for reinforcement learning: what an answer is worth, and what becomes of processes and cache meanwhile."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chain import SHOP, ZOO, cot, make_database
from command import python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import excot
from excot.errors import ExcotError
from excot.execution import RULES, Databases, GoldOutcome, Limits, Task, Verdict, pool, verify_all
from excot.llm.teacher import Teacher
from excot.metrics.compute import compute
from excot.prompts import STYLES, extract_sql, few_shots
from excot.rewards import FATES, ExecutionReward, format_reward

GOLD = "SELECT name FROM item WHERE price > 10"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
# Many seconds inside one call of one SQLite function, during which SQLite never asks for the time.
STUCK = "SELECT instr(replace(hex(zeroblob(2400000)), '0', 'a'), replace(hex(zeroblob(1200000)), '0', 'a') || 'b')"


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("database")
    for name, script in (("shop", SHOP), ("zoo", ZOO)):
        make_database(folder / name / f"{name}.sqlite", script)
    return folder


@pytest.fixture
def reward(databases: Path) -> Iterator[ExecutionReward]:
    with ExecutionReward(databases, timeout=0.3, processes=2) as reward:
        yield reward


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """Every worker process, in the order of starting."""
    processes = []
    start = pool._Worker._start

    def recorded(worker: pool._Worker) -> None:
        start(worker)
        processes.append(worker._process)

    monkeypatch.setattr(pool._Worker, "_start", recorded)
    return processes


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is handed to the workers, golds marked."""
    statements = []
    verify = pool.Pool.verify_all

    def recorded(self: pool.Pool, tasks: list[Task]) -> Iterator[tuple[str, Verdict]]:
        for task in tasks:
            statements.extend((f"gold: {task.gold}", *task.candidates))
        return verify(self, tasks)

    monkeypatch.setattr(pool.Pool, "verify_all", recorded)
    return statements


def worth(reward: ExecutionReward, *answers: Any, gold: str | None = GOLD, db_id: str = "shop") -> list[float | None]:
    """The rewards of answers to one question."""
    return reward(list(answers), [db_id] * len(answers), [gold] * len(answers))


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def ends_soon(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


# ---------------------------------------------------------------------------------------- what an answer is worth


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (cot(GOLD), 1.0),
        (cot("SELECT name FROM item WHERE id IN (5, 1, 2);"), 1.0),
        (GOLD, 1.0),
        (cot("SELECT name FROM item"), 0.1),
        (cot("SELECT nothing FROM item"), 0.0),
        (cot("DROP TABLE item"), 0.0),
        (cot("SELECT zeroblob(2000000000)"), 0.0),
        (cot(ENDLESS), 0.0),
        (cot(STUCK), 0.0),
        ("I do not know.", 0.0),
        ("```sql\nSELECT name FROM item WHERE", 0.0),
        ("", 0.0),
    ],
    ids="gold equal bare other error refused too_large timeout stuck no_sql cut_off empty".split(),
)
def test_right_is_1_executed_but_wrong_a_tenth_and_everything_else_0(reward, answer, expected):
    assert worth(reward, answer) == [expected]


def test_the_three_values_can_be_chosen(databases):
    with ExecutionReward(databases, right=3, executes=-1, wrong=-2, processes=1) as reward:
        assert worth(reward, cot(GOLD), cot("SELECT 1"), cot("SELECT x")) == [3, -1, -2]


def test_every_answer_is_judged_by_its_own_question(reward):
    answers = [cot("SELECT name FROM item WHERE id = 3"), cot("SELECT count(*) FROM animal"), cot("SELECT 4")]
    golds = ["SELECT 'pen'", "SELECT 4", "SELECT 4"]
    assert reward(answers, ["shop", "zoo", "zoo"], golds) == [1.0, 1.0, 1.0]
    assert reward(answers[::-1], ["zoo", "shop", "zoo"], golds) == [0.1, 0.0, 0.0]
    assert reward([], [], []) == []


@pytest.mark.parametrize(
    "completion",
    [
        cot(GOLD),
        [{"role": "assistant", "content": cot(GOLD)}],
        [{"content": cot(GOLD)}],
        [{"role": "assistant", "content": [{"type": "text", "text": cot(GOLD)}]}],
        [
            {"role": "assistant", "content": cot("SELECT 1"), "tool_calls": []},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "content": cot(GOLD)},
            {"role": "tool", "content": cot("SELECT 2")},
        ],
    ],
    ids=["text", "message", "no role", "parts", "tools"],
)
def test_a_completion_is_a_text_or_messages_of_which_the_last_of_the_assistant_counts(reward, completion):
    assert worth(reward, completion) == [1.0]


@pytest.mark.parametrize("completion", [[], [{"role": "assistant", "content": None}], [{"role": "tool"}]])
def test_messages_without_an_answer_have_no_sql(reward, completion):
    assert worth(reward, completion) == [0.0]
    assert format_reward([completion]) == [0.0]


@pytest.mark.parametrize(
    "gold",
    ["SELECT name FROM item WHERE 0", "SELECT nothing FROM item", "DELETE FROM item", ENDLESS, None],
    ids=["empty", "error", "refused", "timeout", "none"],
)
def test_no_answer_to_a_question_whose_gold_is_unusable_has_a_reward_and_the_others_keep_theirs(reward, gold):
    answers = [cot(gold or "SELECT 1"), cot(GOLD), cot("SELECT 1"), "no SQL", cot("SELECT 1"), "no SQL"]
    golds = [gold, GOLD, gold, gold, GOLD, GOLD]
    assert reward(answers, ["shop"] * 6, golds) == [None, 1.0, None, None, 0.1, 0.0]


def test_whatever_else_a_trainer_hands_over_is_ignored(reward):
    extra = {"prompts": ["?"], "completion_ids": [[1]], "trainer_state": None, "log_extra": print, "difficulty": [1]}
    assert reward(completions=[cot(GOLD)], db_id=["shop"], gold_sql=[GOLD], log_metric=None, **extra) == [1.0]


def test_each_call_logs_the_share_of_every_fate(reward):
    logged: list[tuple[str, float]] = []
    answers = [cot(GOLD), cot("SELECT 1"), cot("SELECT x"), cot(ENDLESS), "none", "none", cot(GOLD), cot(GOLD)]
    reward(
        answers, ["shop"] * 8, [*[GOLD] * 6, "SELECT 1 WHERE 0", "SELECT x"], log_metric=lambda *m: logged.append(m)
    )
    assert [name for name, _ in logged] == [f"execution_reward/{fate}" for fate in FATES]
    shares = {name.removeprefix("execution_reward/"): share for name, share in logged}
    assert shares == dict.fromkeys(FATES, 0.0) | {
        "right": 1 / 8, "executes": 1 / 8, "error": 1 / 8, "timeout": 1 / 8, "no_sql": 2 / 8, "gold_unusable": 2 / 8
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ the same judge

GOLDS = (
    ("shop", "SELECT kind, price FROM item ORDER BY price"),
    ("shop", "SELECT DISTINCT kind FROM item"),
    ("zoo", "SELECT name, weight FROM animal WHERE weight > 1"),
    ("zoo", "SELECT name FROM animal WHERE weight > 1000"),
    ("zoo", "SELECT nothing"),
)
STATEMENTS = (
    "SELECT kind, price FROM item ORDER BY price",
    "SELECT kind, price FROM item ORDER BY price DESC",
    "SELECT price, kind FROM item ORDER BY price, id",
    "SELECT DISTINCT kind, price FROM item",
    "SELECT kind FROM item",
    "SELECT kind FROM item GROUP BY kind;",
    "SELECT 'office' UNION ALL SELECT 'home'",
    "SELECT weight, name FROM animal WHERE id < 4",
    "SELECT name, weight FROM animal WHERE id < 4 ORDER BY weight",
    "SELECT name, weight FROM animal WHERE id < 4 UNION ALL SELECT 'owl', 2.0",
    "SELECT name FROM animal WHERE 0",
    "SELECT nothing",
    "ATTACH ':memory:' AS other",
    "SELECT 1; SELECT 2",
)
completions = st.one_of(
    st.sampled_from(STATEMENTS).map(cot),
    st.sampled_from(STATEMENTS),
    st.sampled_from(STATEMENTS).map(lambda sql: [{"role": "assistant", "content": cot(sql + " ;")}]),
    st.sampled_from(["", "Sorry.", "```pseudo\nSELECT 1\n```", "```sql\nSELECT 1"]),
)


@pytest.fixture(scope="module")
def rewards_by_rule(databases: Path) -> Iterator[dict[str, list[ExecutionReward]]]:
    """For each rule a reward that forgets everything, one whose cache is too small, and one that has room."""
    made = {
        rule: [ExecutionReward(databases, rule=rule, processes=1, cache_size=n) for n in (0, 3, 100)] for rule in RULES
    }
    yield made
    for rewards in made.values():
        for reward in rewards:
            reward.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.tuples(completions, st.sampled_from(GOLDS)), max_size=12))
def test_rewards_say_what_verify_all_says_by_every_rule(databases, rewards_by_rule, batch):
    files = Databases(databases)
    expected: dict[str, list[float | None]] = {rule: [] for rule in RULES}
    texts = [completion if isinstance(completion, str) else completion[0]["content"] for completion, _ in batch]
    found = [extract_sql(text).sql for text in texts]
    tasks = [
        Task(str(place), files.paths(db_id), gold, () if sql is None else (sql,))
        for place, (sql, (_, (db_id, gold))) in enumerate(zip(found, batch, strict=True))
    ]
    verdicts = dict(verify_all(tasks, 1))
    for place in range(len(batch)):
        verdict = verdicts[str(place)]
        for rule in RULES:
            if verdict.gold.status != "ok":
                value = None
            elif not verdict.candidates:
                value = 0.0
            elif getattr(verdict.candidates[0].matches, rule):
                value = 1.0
            else:
                value = 0.1 if verdict.candidates[0].status == "ok" else 0.0
            expected[rule].append(value)
    answers, questions = [completion for completion, _ in batch], [question for _, question in batch]
    for rule, rewards in rewards_by_rule.items():
        for reward in rewards:
            given = reward(answers, [db_id for db_id, _ in questions], [gold for _, gold in questions])
            assert given == expected[rule], rule


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.tuples(completions, st.sampled_from(GOLDS)), min_size=1, max_size=12))
def test_an_answer_has_the_full_reward_where_the_metric_calls_it_right(databases, rewards_by_rule, batch):
    answers, questions = [completion for completion, _ in batch], [question for _, question in batch]
    texts = [answer if isinstance(answer, str) else answer[0]["content"] for answer in answers]
    references = [{"db_id": db_id, "gold_sql": gold} for db_id, gold in questions]
    for rule, (reward, *_) in rewards_by_rule.items():
        scored = compute(texts, references, databases, rule=rule, return_details=True, timeout=0.3, processes=1)
        given = reward(answers, [db_id for db_id, _ in questions], [gold for _, gold in questions])
        for value, row in zip(given, scored["details"], strict=True):
            if value is None:  # the metric scores such a question, too; there is just nothing to learn from it
                assert row["gold"]["status"] != "ok"
            else:
                assert (value == 1.0) == (row["right"] == 1.0)


def test_a_second_instance_of_the_database_counts_for_the_test_suite_rule(tmp_path):
    make_database(tmp_path / "shop" / "shop.sqlite", SHOP)
    make_database(tmp_path / "shop" / "more.sqlite", SHOP + "INSERT INTO item VALUES (6, 'cat', 70.0, 'home');")
    kind = cot("SELECT name FROM item WHERE id IN (1, 2, 5)")
    for rule, expected in (("set", 1.0), ("test_suite", 0.1)):
        with ExecutionReward(tmp_path, rule=rule, processes=1) as reward:
            assert worth(reward, kind) == [expected]


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
        patched.setattr(pool.Pool, "verify_all", lambda self, tasks: ((task.id, overloaded) for task in tasks))
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
        assert all(process.poll() is None for process in started)
    assert all(process.returncode is not None for process in started)
    assert worth(reward, "SELECT 7") == [0.1]  # closed, and used again
    reward.close()
    assert len(started) == 3 and started[2].returncode is not None


def test_a_worker_that_is_killed_between_calls_or_in_one_changes_no_reward(databases, started):
    slow = "SELECT count(*) FROM item a, item b, item c, item d, item e, item f, item g, item h WHERE a.id <> {}"
    with ExecutionReward(databases, timeout=30, processes=1) as reward:
        worth(reward, "SELECT 1")
        started[0].kill()
        assert worth(reward, cot(GOLD), "SELECT 2", "SELECT x") == [1.0, 0.1, 0.0]
        assert len(started) == 2
        killer = threading.Timer(0.02, lambda: started[-1].kill())
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
    assert all(process.returncode is not None for process in started)


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
    assert ends_soon(pid)


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


# ------------------------------------------------------------------------------------------------ errors


def one_line(error: pytest.ExceptionInfo[ExcotError]) -> bool:
    return bool(error.value.remedy) and "\n" not in str(error.value)


def test_a_missing_database_is_an_error_at_the_first_call(reward, started):
    with pytest.raises(ExcotError, match="no database 'museum'") as error:
        reward(["SELECT 1", "no SQL"], ["shop", "museum"], [GOLD, GOLD])
    assert one_line(error) and started == []


def test_a_missing_folder_is_an_error_at_once(tmp_path):
    with pytest.raises(ExcotError, match="no such databases folder") as error:
        ExecutionReward(tmp_path / "nowhere")
    assert one_line(error)


@pytest.mark.parametrize(
    ("db_id", "gold"), [(["shop"], [GOLD] * 2), (["shop"] * 2, [GOLD]), (["shop"] * 3, [GOLD] * 3)]
)
def test_lists_of_unequal_length_are_an_error(reward, db_id, gold):
    with pytest.raises(ExcotError, match=f"have 2, {len(db_id)} and {len(gold)} values") as error:
        reward(["SELECT 1", "SELECT 2"], db_id, gold)
    assert one_line(error)


@pytest.mark.parametrize(
    "options",
    [
        {"right": 0.1},
        {"right": 0.0, "executes": 0.5},
        {"executes": -0.1},
        {"right": float("nan")},
        {"rule": "fuzzy"},
        {"timeout": 0},
        {"processes": 0},
        {"cache_size": -1},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_an_error(databases, options):
    (name, value), *_ = options.items()
    with pytest.raises(ExcotError, match=rf"{name}.*{value}") as error:
        ExecutionReward(databases, **options)
    assert one_line(error)


def test_no_more_than_nothing_for_sql_that_executes_is_allowed(databases):
    with ExecutionReward(databases, executes=0.0, processes=1) as reward:
        assert worth(reward, cot(GOLD), "SELECT 1") == [1.0, 0.0]


# ------------------------------------------------------------------------------------------------ trainers


def test_a_trainer_sees_a_plain_function_with_a_name(reward):
    assert reward.__name__ == "execution_reward" and format_reward.__name__ == "format_reward"
    assert not inspect.iscoroutinefunction(reward) and not inspect.iscoroutinefunction(reward.__call__)
    assert excot.ExecutionReward is ExecutionReward and excot.format_reward is format_reward


def test_importing_rewards_imports_no_heavy_library():
    heavy = {"torch", "trl", "transformers", "datasets", "pyarrow", "numpy", "jinja2", "yaml"}
    out, errors = python(f"import sys, excot.rewards; print({heavy} & set(sys.modules))").communicate()
    assert (out, errors) == ("set()\n", "")


def test_verl_gets_one_number_an_answer(reward):
    def score(answer: str, gold: str = GOLD, extra: dict | None = None) -> float:
        extra = {"db_id": "shop", "index": 3} if extra is None else extra
        return reward.compute_score(
            data_source="spider", solution_str=answer, ground_truth=gold, extra_info=extra, reward_router_address="-"
        )

    assert [score(cot(GOLD)), score(cot("SELECT 1")), score(cot("SELECT x")), score("?")] == [1.0, 0.1, 0.0, 0.0]
    assert score(cot(GOLD), gold="SELECT 1 WHERE 0") == 0.0
    assert list(inspect.signature(reward.compute_score).parameters)[:4] == [
        "data_source", "solution_str", "ground_truth", "extra_info"
    ]  # fmt: skip
    for extra in ({}, {"index": 1}):
        with pytest.raises(ExcotError, match="extra_info holds no db_id") as error:
            score(cot(GOLD), extra=extra)
        assert one_line(error)


def test_what_verl_is_given_can_be_sent_to_another_process(reward):
    again = pickle.loads(pickle.dumps(reward.compute_score))
    assert again("spider", cot(GOLD), GOLD, {"db_id": "shop"}) == 1.0
    again.__self__.close()


# ---------------------------------------------------------------------------------------- the form of an answer

FORM = """## Divide and Conquer

**Main question:** Which items cost more than ten
```pseudo
SELECT name FROM item, dear ones
```

## Assembling SQL

```pseudo
SELECT name, price FROM item WHERE price > 10
```
The price is not asked for.
```sql
SELECT name FROM item WHERE price > 10
```
"""
SWAPPED = FORM.replace("Divide and Conquer", "@").replace("Assembling SQL", "Divide and Conquer")
SWAPPED = SWAPPED.replace("@", "Assembling SQL")


@pytest.mark.parametrize("style", STYLES)
def test_the_examples_of_the_divide_and_conquer_prompt_have_its_form_and_no_others_have(style):
    answers = [example.answer for example in few_shots(style)]
    assert answers and format_reward(answers) == [float(style == "divide_and_conquer")] * len(answers)


def test_the_teacher_writes_in_that_form():
    question = {"id": "q", "question": "?", "gold_sql": GOLD, "schema": "", "evidence": None}
    answers = [answer.text for answer in Teacher(0.5).plan(question, 8, 0)]
    assert answers and format_reward(answers) == [1.0] * len(answers)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (FORM, 1.0),
        ([{"role": "assistant", "content": FORM}], 1.0),
        (f"\n{FORM}\n\n", 1.0),
        (FORM.replace("## ", "### ").replace("Conquer", "conquer"), 1.0),
        (FORM.replace("name FROM item WHERE", "x FROM y WHERE"), 1.0),
        (FORM.replace("## Divide and Conquer", ""), 0.0),
        (FORM.replace("## Assembling SQL", ""), 0.0),
        (FORM.replace("## ", "**"), 0.0),
        (SWAPPED, 0.0),
        (FORM + FORM, 0.0),
        (FORM.replace("```pseudo", "```sql"), 0.0),
        (FORM.replace("```sql", "```"), 0.0),
        (FORM.rstrip().removesuffix("```"), 0.0),
        (FORM + "This is the query.", 0.0),
        (FORM.replace("```sql\n", "").rstrip().removesuffix("```"), 0.0),
        ("```sql\nSELECT 1\n```\n## Divide and Conquer\n## Assembling SQL", 0.0),
        ("## Divide and Conquer\n```sql\nSELECT 1\n```\n## Assembling SQL\n```pseudo\nSELECT 1\n```", 0.0),
        ("## Divide and Conquer\n```sql\nSELECT 1\n```\n## Assembling SQL", 0.0),
        ("## Divide and Conquer\n```sql\n## Assembling SQL\nSELECT 1\n```", 0.0),
        (FORM + "SELECT name FROM item WHERE price > 10", 0.0),
        (GOLD, 0.0),
        ("", 0.0),
    ],
)
def test_the_form_is_two_parts_and_one_final_sql_block(completion, expected):
    assert format_reward([completion, completion], prompts=[], trainer_state=None) == [expected] * 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*FORM.split("\n"), "```sql", "```", "SELECT 1"]), max_size=14).map("\n".join))
def test_any_text_has_a_form_reward_and_a_well_formed_one_has_its_sql(text):
    (value,) = format_reward([text])
    assert value in (0.0, 1.0)
    if value:
        assert extract_sql(text).status == "ok" and text.rstrip().endswith("```")
        assert text.lower().index("divide and conquer") < text.lower().index("assembling sql")
