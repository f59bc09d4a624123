"""Faults of earlier text-to-SQL training code, each shown not to be here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain import SHOP, cot, judge, make_data, make_database, make_run, read_data, replay, rows_of, write_questions

from excot.builders.pairs import choose_pairs, pair_rows
from excot.builders.sft import sft_rows
from excot.config import PairsConfig, SftConfig
from excot.execution import MissingDatabase, Outcome, Task, Verifier
from excot.prompts import extract_sql
from excot.run import Run

NAMES = "SELECT name FROM item"
Judge = Callable[..., list[Outcome]]


@pytest.fixture
def outcomes(tmp_path: Path) -> Judge:
    """Gold and candidates on one small database, as the labels, the scores and the reward all see them."""
    path = tmp_path / "shop.sqlite"
    make_database(path, SHOP + "CREATE TABLE [odd names] ([col name] TEXT); INSERT INTO [odd names] VALUES ('x');")

    def judge(gold: str, *candidates: str) -> list[Outcome]:
        verifier = Verifier()
        try:
            return [outcome for _, outcome in list(verifier.verify(Task("q", (path,), gold, candidates)))[1:]]
        finally:
            verifier.close()

    return judge


def right(outcome: Outcome) -> bool:
    assert len(set(outcome.matches)) == 1  # in these cases the comparators agree
    return outcome.matches.set


def test_two_failing_queries_are_not_equal(outcomes: Judge) -> None:
    for failing in ("SELECT nome FROM item", "SELECT"):
        assert [(o.status, right(o)) for o in outcomes(failing, failing, "SELECT nope FROM item")] == [
            ("error", False),
            ("error", False),
        ]


def test_two_different_multi_statement_texts_are_not_equal(outcomes: Judge) -> None:
    two, other = f"{NAMES}; SELECT 1", f"{NAMES}; SELECT 2"
    assert [(o.status, right(o)) for o in outcomes(two, other, two)] == [("error", False)] * 2
    assert [(o.status, right(o)) for o in outcomes(NAMES, two)] == [("error", False)]


@pytest.mark.parametrize(
    ("gold", "sql"),
    [
        ('SELECT "col name" FROM "odd names"', "SELECT [col name] FROM [odd names]"),
        (NAMES, "SELECT name 'the name' FROM item"),
        (NAMES, f"{NAMES}; -- all of them"),
        (NAMES, f"{NAMES}; /* all of them */ ;"),
        (NAMES, "SELECT name FROM item NOT INDEXED"),
        (NAMES, "SELECT name FROM item WHERE name GLOB '*' AND id IS NOT NULL"),
    ],
)
def test_valid_sqlite_is_right_whatever_a_generic_parser_thinks_of_it(gold: str, sql: str, outcomes: Judge) -> None:
    (outcome,) = outcomes(gold, sql)
    assert (outcome.status, right(outcome)) == ("ok", True)


def test_backticks_quote_names_and_never_become_strings(outcomes: Judge) -> None:
    answer = cot("SELECT `name` FROM `item` WHERE kind = '`'")
    assert extract_sql(answer).sql == "SELECT `name` FROM `item` WHERE kind = '`'"
    found = outcomes(NAMES, "SELECT `name` FROM `item`", "SELECT `nome` FROM `item`")
    assert [(o.status, right(o)) for o in found] == [("ok", True), ("error", False)]


def test_no_candidate_changes_what_the_next_one_sees(outcomes: Judge, tmp_path: Path) -> None:
    before = (tmp_path / "shop.sqlite").read_bytes()
    evil = ["CREATE TEMP TABLE item AS SELECT 'x' AS name", "CREATE TEMP VIEW item AS SELECT 1 AS name"]
    evil += ["DELETE FROM item", "PRAGMA case_sensitive_like = 1", "ATTACH ':memory:' AS other", "BEGIN"]
    sql = f"{NAMES} WHERE name LIKE '%A%' OR name NOT LIKE '%A%'"
    found = outcomes(NAMES, *(statement for one in evil for statement in (one, f"{sql} -- after {one[:12]}")))
    assert [(o.status, right(o)) for o in found] == [("refused", False), ("ok", True)] * len(evil)
    assert (tmp_path / "shop.sqlite").read_bytes() == before


def test_a_missing_database_is_not_created_empty(tmp_path: Path) -> None:
    path = tmp_path / "gone.sqlite"
    with pytest.raises(MissingDatabase):
        list(Verifier().verify(Task("q", (path,), NAMES, (NAMES,))))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_gold_is_matched_by_an_empty_answer_and_gives_no_training_data(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", 1)
    gold = "SELECT name FROM item WHERE price > 999"
    write_questions(data, [{"question": "Which?", "db_id": "shop", "gold_sql": gold}])
    out = read_data(data, tmp_path / "run")
    replay(out, {0: ["SELECT kind FROM item WHERE price > 998", "SELECT kind FROM item"]})
    (row,) = judge(out)
    assert row["gold"]["status"] == "empty"
    assert [set(candidate["matches"].values()) for candidate in row["candidates"]] == [{True}, {False}]
    assert list(sft_rows(Run(out), SftConfig(out=out))) == []


def test_content_that_is_none_is_no_answer_and_no_error(tmp_path: Path) -> None:
    assert extract_sql(None).status == "no_sql"
    out = make_run(tmp_path, 1)
    replay(out, {0: [None, NAMES]})
    (row,) = judge(out)
    assert [candidate["status"] for candidate in row["candidates"]] == ["no_sql", "ok"]
    assert [candidate["matches"]["set"] for candidate in row["candidates"]] == [False, True]


@pytest.mark.parametrize("strategy", ["nearest", "farthest", "random"])
def test_a_distance_over_ten_thousand_still_finds_the_rejected_answer(strategy: str) -> None:
    sides = [{"text": "a" * 12_000, "sql": "a"}], [{"text": "b" * 25_000, "sql": "b"}]
    (pair,) = choose_pairs(*sides, PairsConfig(out="x", strategy=strategy), "q")
    assert (pair.distance, sides[1][pair.rejected]["text"]) == (25_000, "b" * 25_000)


def test_random_is_not_the_first() -> None:
    sides = [[{"text": f"{side}{k}", "sql": f"{side}{k}"} for k in range(4)] for side in "rw"]
    drawn = {
        choose_pairs(*sides, PairsConfig(out="x", strategy="random", seed=seed), "q")[0][1:] for seed in range(300)
    }
    assert len(drawn) == 16


def test_answers_join_their_questions_by_id_not_by_position(tmp_path: Path) -> None:
    out = make_run(tmp_path, 12)
    golds = [row["gold_sql"] for row in rows_of(out, "questions")]
    replay(out, {k: [golds[k]] for k in reversed(range(12)) if k % 2})  # half of them, in the wrong order
    for k, row in enumerate(judge(out)):
        assert [(c["sql"], c["matches"]["set"]) for c in row["candidates"]] == ([(golds[k], True)] if k % 2 else [])


def test_no_worked_example_stands_in_a_students_prompt(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    replay(out, {0: [NAMES, "SELECT 1"]}, few_shots=3)
    judge(out)
    rows: list[dict[str, Any]] = [*sft_rows(Run(out), SftConfig(out=out)), *pair_rows(Run(out), PairsConfig(out=out))]
    assert [[message["role"] for message in row["prompt"]] for row in rows] == [["system", "user"]] * 2
