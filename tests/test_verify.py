"""One question's candidates against its gold: what fails, what is executed, and what never counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import make_database
from hostile import ENDLESS
from singers import ALL, NOTHING, SINGERS, Verified

from excot.execution import verify
from excot.execution.compare import Matches
from excot.execution.database import DatabaseError
from excot.execution.sandbox import Limits
from excot.execution.task import GOLD, GoldOutcome, Known, Outcome, Task
from excot.execution.verify import Verifier

HASTE = Limits(seconds=0.3)


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_database(tmp_path_factory.mktemp("singers") / "singers.sqlite", SINGERS)


# ------------------------------------------------------------------------------------------------ failures


def test_two_failing_queries_are_not_equal(database):
    verified = Verified(
        database, "SELECT nowhere FROM singer", "SELECT nowhere FROM singer", "SELECT nowhere FROM  singer"
    )
    assert verified.gold.status == "error"
    assert "no such column" in verified.gold.error
    assert verified.statuses == ["error", "error"]
    assert verified.matches == [NOTHING, NOTHING]


def test_two_different_multi_statement_strings_are_not_equal(database):
    verified = Verified(database, "SELECT 1; SELECT 2", "SELECT 1; SELECT 3", "SELECT 1; SELECT 2", "SELECT 1")
    assert verified.gold.status == "error"
    assert verified.statuses == ["error", "error", "ok"]
    assert verified.matches == [NOTHING] * 3


def test_a_candidate_of_several_statements_is_wrong_even_if_one_of_them_is_the_gold(database):
    gold = "SELECT name FROM singer"
    verified = Verified(database, gold, f"{gold}; {gold}", f"{gold}; SELECT 1", f"SELECT 1; {gold}")
    assert verified.statuses == ["error"] * 3
    assert verified.matches == [NOTHING] * 3


@pytest.mark.parametrize(
    ("gold", "status"),
    [
        ("SELECT nowhere FROM singer", "error"),
        ("DROP TABLE singer", "error"),
        ("PRAGMA table_info(singer)", "error"),
        ("SELECT name FROM singer; SELECT 2", "error"),
        ("", "error"),
        (ENDLESS, "timeout"),
        ("SELECT zeroblob(2000000000)", "too_large"),
    ],
)
def test_a_gold_that_cannot_be_executed_matches_nothing_but_its_candidates_have_a_status(database, gold, status):
    candidates = ["SELECT name FROM singer", "SELECT name FROM singer WHERE 0", "SELECT x", "DROP TABLE singer", gold]
    verified = Verified(database, gold, *candidates, limits=HASTE)
    assert (verified.gold.status, verified.gold.rows) == (status, None)
    assert verified.gold.error
    assert verified.statuses[:3] == ["ok", "ok", "error"]
    assert verified.candidates[0].rows == 3
    assert verified.statuses[4] == status
    assert verified.matches == [NOTHING] * 5


def test_a_candidate_that_fails_says_how(database):
    verified = Verified(
        database, "SELECT 1", "SELECT x", ENDLESS, "SELECT zeroblob(2000000000)", "DELETE FROM singer", limits=HASTE
    )
    assert verified.statuses == ["error", "timeout", "too_large", "refused"]
    assert verified.matches == [NOTHING] * 4
    assert [outcome.error for outcome in verified.candidates][::3] == [
        "no such column: x",
        "not authorized (delete)",
    ]
    assert all(outcome.rows is None for outcome in verified.candidates)


@pytest.mark.parametrize("limits", [Limits(rows=2), Limits(result_bytes=300)])
def test_a_gold_result_that_is_too_large_to_keep_matches_nothing(database, limits):
    verified = Verified(database, "SELECT * FROM singer", "SELECT * FROM singer WHERE 1", limits=limits)
    assert verified.gold.status == "too_large"
    assert verified.statuses == ["ok"]
    assert verified.matches == [NOTHING]


def test_a_gold_result_may_have_as_many_rows_as_the_limit(database):
    verified = Verified(database, "SELECT * FROM singer", "SELECT * FROM singer WHERE 1", limits=Limits(rows=3))
    assert (verified.gold, verified.matches) == (
        GoldOutcome("ok", None, verified.gold.seconds, 3),
        [ALL],
    )


def test_a_damaged_database_is_no_candidates_fault(tmp_path):
    path = make_database(tmp_path / "x.sqlite", SINGERS)
    pages = bytearray(path.read_bytes())
    pages[4096:8192] = b"\xff" * 4096
    path.write_bytes(pages)
    with pytest.raises(DatabaseError, match="malformed"):
        Verified(path, "SELECT 1", "SELECT name FROM singer")


# ------------------------------------------------------------------------------------------------ what is executed


def test_the_gold_and_equal_statements_are_executed_once(database):
    gold, other = "SELECT name FROM singer", "SELECT age FROM singer"
    verified = Verified(
        database, gold, other, f" {other};", gold, f"{other} ;\n", f"{gold};", "SELECT nope", "SELECT nope;"
    )
    assert verified.executed == [GOLD, 0, 5]
    assert verified.statuses == ["ok"] * 5 + ["error"] * 2
    assert verified.candidates[0] == verified.candidates[1] == verified.candidates[3]


def test_a_candidate_that_is_the_gold_to_the_letter_is_right_and_has_the_golds_outcome(database):
    verified = Verified(database, "SELECT name FROM singer", "SELECT name FROM singer")
    gold = verified.gold
    assert verified.candidates == [Outcome("ok", ALL, None, gold.seconds, gold.rows)]
    assert (gold.status, gold.rows) == ("ok", 3)


def test_statements_that_differ_in_more_than_their_ends_are_different(database):
    verified = Verified(database, "SELECT 'a;'", "SELECT 'a'", "SELECT 'A;'", "SELECT 'a; '")
    assert verified.executed == [GOLD, 0, 1, 2]
    assert verified.matches == [NOTHING] * 3


def test_a_candidate_with_distinct_is_executed_again_only_where_it_may_match_without(database):
    def executed(candidate: str) -> list[int]:
        return Verified(database, "SELECT age FROM singer", candidate).executed

    assert executed("SELECT DISTINCT age FROM singer") == [GOLD, 0, 0]
    assert executed("select  distinct name FROM singer") == [GOLD, 0]
    assert executed("SELECT DISTINCT age FROM singer WHERE 0") == [GOLD, 0]
    assert executed("SELECT DISTINCT name FROM singer LIMIT 1") == [GOLD, 0, 0]  # whose rows may be others without
    assert executed("SELECT count(DISTINCT name) FROM singer") == [GOLD, 0, 0]


def test_a_gold_with_distinct_is_executed_once_more_without_it(database):
    verified = Verified(
        database, "SELECT DISTINCT age FROM singer", "SELECT age FROM singer", "SELECT DISTINCT age FROM singer"
    )
    assert verified.executed == [GOLD, GOLD, 0]
    assert verified.matches == [Matches(set=True, test_suite=True), ALL]


def test_what_is_known_already_is_not_executed_again(database):
    task = Task("1", (database,), "SELECT 1", ("SELECT 2", "SELECT 3", "SELECT 2;"), Limits())
    known = Known({0: Outcome("timeout", error="known")})
    executed: list[int] = []
    verifier = Verifier(on_statement=executed.append)
    outcomes = dict(verifier.verify(task, known))
    verifier.close()
    assert executed == [GOLD, 1]
    assert set(outcomes) == {GOLD, 1, 2}
    assert outcomes[2] is known.outcomes[0]


def test_a_gold_that_was_given_up_is_not_executed_again(database):
    task = Task("1", (database,), "SELECT 1", ("SELECT 1", "SELECT 2"), Limits())
    given_up = GoldOutcome("timeout", error="known")
    executed: list[int] = []
    verifier = Verifier(on_statement=executed.append)
    outcomes = dict(verifier.verify(task, Known(gold=given_up)))
    verifier.close()
    assert executed == [1]
    assert outcomes[GOLD] is given_up
    assert outcomes[0] == Outcome("timeout", error="known")
    assert outcomes[1].status == "ok" and outcomes[1].matches == NOTHING


def test_a_temp_table_made_by_one_candidate_does_not_change_the_next_ones_answer(database):
    gold = "SELECT count(*) FROM singer"
    verified = Verified(
        database,
        gold,
        "CREATE TEMP TABLE singer AS SELECT 1",
        "SELECT count(*) FROM singer WHERE 1",
        "PRAGMA case_sensitive_like = 1",
        "SELECT count(*) FROM singer WHERE name LIKE 'ANN' OR name NOT LIKE 'ANN'",
        "SELECT 3 WHERE 'A' LIKE 'a'",
    )
    assert verified.statuses == ["refused", "ok", "refused", "ok", "ok"]
    assert verified.matches == [NOTHING, ALL, NOTHING, ALL, ALL]


def test_a_verifier_goes_from_database_to_database(tmp_path):
    first = make_database(tmp_path / "first.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    second = make_database(tmp_path / "second.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (2)")
    verifier = Verifier()
    for path, expected in ((first, 1), (second, 2), (first, 1), (first, 1)):
        task = Task("1", (path,), "SELECT a FROM t", (f"SELECT {expected}", f"SELECT {3 - expected}"), Limits())
        assert [outcome.matches for place, outcome in verifier.verify(task) if place != GOLD] == [ALL, NOTHING]
    with pytest.raises(DatabaseError):
        next(verifier.verify(Task("1", (tmp_path / "missing.sqlite",), "SELECT 1", (), Limits())))
    task = Task("1", (first,), "SELECT a FROM t", ("SELECT 1",), Limits())
    assert dict(verifier.verify(task))[0].matches == ALL
    verifier.close()


def test_questions_on_one_database_share_its_connection(database, monkeypatch):
    opened = []

    class Counted(verify.Sandbox):
        def __init__(self, path, limits, on_restart):
            opened.append((path, limits))
            super().__init__(path, limits, on_restart)

    monkeypatch.setattr(verify, "Sandbox", Counted)
    verifier = Verifier()
    for limits in (Limits(), Limits(), HASTE):
        list(verifier.verify(Task("1", (database,), "SELECT 1", ("SELECT 2",), limits)))
    verifier.close()
    assert opened == [(database, Limits()), (database, HASTE)]
