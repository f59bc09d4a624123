"""Rewards for reinforcement learning: what an answer is worth, to whom, and which mistakes are errors."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import SHOP, cot, make_database
from command import python
from hostile import ENDLESS, STUCK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rewarded import GOLD, worth

import excot
from excot.errors import ExcotError
from excot.execution import RULES, Databases, Task, verify_all
from excot.metrics.compute import compute
from excot.prompts import extract_sql
from excot.rewards import FATES, ExecutionReward, format_reward

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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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
