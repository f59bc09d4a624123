"""One question's candidates against its gold: what counts as equal, what is executed, and what never counts."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from excot.execution import verify
from excot.execution.compare import Matches
from excot.execution.database import DatabaseError
from excot.execution.sandbox import Limits
from excot.execution.verify import GOLD, GoldOutcome, Outcome, Task, Verifier

NOTHING = Matches()
ALL = Matches(True, True, True, True)
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
HASTE = Limits(seconds=0.3)

SINGERS = """
    CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INT, "birth place" TEXT, note TEXT);
    INSERT INTO singer VALUES
        (1, 'Ann', 30, 'Rome', CAST(x'63616fe9' AS TEXT)), (2, 'Bob', 40, 'Oslo', NULL), (3, 'Cid', 30, 'Rome', '');
"""


def make(path: Path, script: str = SINGERS) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("singers") / "singers.sqlite")


class Verified:
    """The outcomes of one task, in this process."""

    def __init__(self, databases: Path | tuple[Path, ...], gold: str, *candidates: str, limits: Limits | None = None):
        paths = databases if isinstance(databases, tuple) else (databases,)
        self.executed: list[int] = []
        verifier = Verifier(on_statement=self.executed.append)
        outcomes = list(verifier.verify(Task("1", paths, gold, candidates, limits or Limits(seconds=30))))
        verifier.close()
        assert [place for place, _ in outcomes] == [GOLD, *range(len(candidates))]
        self.gold: GoldOutcome = outcomes[0][1]
        self.candidates: list[Outcome] = [outcome for _, outcome in outcomes[1:]]

    @property
    def statuses(self) -> list[str]:
        return [outcome.status for outcome in self.candidates]

    @property
    def matches(self) -> list[Matches]:
        return [outcome.matches for outcome in self.candidates]


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
    path = make(tmp_path / "x.sqlite")
    pages = bytearray(path.read_bytes())
    pages[4096:8192] = b"\xff" * 4096
    path.write_bytes(pages)
    with pytest.raises(DatabaseError, match="malformed"):
        Verified(path, "SELECT 1", "SELECT name FROM singer")


# ------------------------------------------------------------------------------------------------ what is equal


@pytest.mark.parametrize(
    "candidate",
    [
        "SELECT [name] FROM [singer]",
        "SELECT name 'alias' FROM singer",
        'SELECT name "an alias" FROM singer',
        "SELECT name FROM singer; -- done",
        "SELECT name FROM singer -- done;",
        "-- first\nSELECT name /* the name */ FROM singer;",
        "  SELECT name FROM singer ;  ",
        "select singer . name from main.singer",
        "SELECT iif(1, name, NULL) FROM singer",
        "SELECT name FROM singer WHERE age IS NOT NULL GROUP BY id HAVING count(*) == 1",
        "SELECT name FROM singer NOT INDEXED",
    ],
)
def test_valid_sqlite_runs_whatever_other_parsers_make_of_it(database, candidate):
    verified = Verified(database, "SELECT name FROM singer", candidate)
    assert verified.candidates[0].error is None
    assert verified.matches == [ALL]


def test_backticks_stay_identifiers(database):
    gold = 'SELECT "birth place" FROM singer'
    verified = Verified(database, gold, "SELECT `birth place` FROM singer", "SELECT 'birth place' FROM singer")
    assert verified.matches == [ALL, NOTHING]


def test_one_is_one_point_zero_but_not_the_text_one(database):
    verified = Verified(database, "SELECT 1", "SELECT 1.0", "SELECT '1'", "SELECT x'31'", "SELECT NULL")
    assert verified.matches == [ALL, NOTHING, NOTHING, NOTHING]


def test_text_that_is_not_utf8_equals_itself(database):
    verified = Verified(
        database, "SELECT note FROM singer", "SELECT note || '' FROM singer", "SELECT note FROM singer s"
    )
    assert verified.matches == [ALL, ALL]


def test_an_empty_gold_matches_an_empty_candidate(database):
    verified = Verified(
        database,
        "SELECT name FROM singer WHERE age > 99",
        "SELECT id, age FROM singer WHERE age < 0",
        "SELECT name FROM singer",
        "SELECT max(age) FROM singer WHERE age > 99",
    )
    assert (verified.gold.status, verified.gold.rows, verified.gold.error) == ("empty", 0, None)
    assert verified.statuses == ["ok", "ok", "ok"]
    assert verified.matches == [ALL, NOTHING, NOTHING]


def test_each_rule_forgives_what_it_says(database):
    verified = Verified(
        database,
        "SELECT age, name FROM singer ORDER BY name",
        "SELECT age, name FROM singer ORDER BY name ASC",
        "SELECT age, name FROM singer ORDER BY name DESC",
        "SELECT name, age FROM singer ORDER BY name ASC",
        "SELECT name, age FROM singer ORDER BY name DESC",
        "SELECT age, name FROM singer UNION ALL SELECT age, name FROM singer",
        "SELECT age FROM singer",
    )
    assert verified.matches == [
        ALL,
        Matches(set=True, multiset=True),
        Matches(test_suite=True),
        NOTHING,
        Matches(set=True),
        NOTHING,
    ]


def test_order_by_within_the_gold_counts_for_test_suite_only(database):
    inner = "SELECT name FROM (SELECT * FROM singer ORDER BY id)"
    (outcome,) = Verified(database, inner, "SELECT name FROM singer ORDER BY id DESC").candidates
    assert outcome.matches == Matches(set=True, multiset=True, ordered=True, test_suite=False)


def test_all_pairs_of_statements_agree_with_a_plain_comparison(database):
    statements = [
        f"SELECT {distinct} {columns} FROM singer {where} {order}"
        for distinct in ("", "DISTINCT")
        for columns in ("age", "name", "age, name", "name, age", "count(*)", "age, age")
        for where in ("", "WHERE age = 30", "WHERE age > 99")
        for order in ("", "ORDER BY name")
    ]
    connection = sqlite3.connect(database)
    results = {sql: connection.execute(sql).fetchall() for sql in statements}
    connection.close()
    verifier = Verifier()
    for gold in statements:
        task = Task("1", (database,), gold, tuple(statements), Limits(seconds=30))
        for place, outcome in verifier.verify(task):
            if place != GOLD:
                expected, rows = results[gold], results[statements[place]]
                assert outcome.status == "ok"
                assert outcome.matches.set == (set(expected) == set(rows))
                assert outcome.matches.multiset == (Counter(expected) == Counter(rows))
                assert outcome.matches.ordered == (
                    expected == rows if gold.endswith("ORDER BY name") else Counter(expected) == Counter(rows)
                )
    verifier.close()


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


def test_a_gold_with_distinct_is_executed_once_more_without_it(database):
    verified = Verified(
        database, "SELECT DISTINCT age FROM singer", "SELECT age FROM singer", "SELECT DISTINCT age FROM singer"
    )
    assert verified.executed == [GOLD, GOLD, 0, 0]
    assert verified.matches == [Matches(set=True, test_suite=True), ALL]


def test_what_is_known_already_is_not_executed_again(database):
    task = Task("1", (database,), "SELECT 1", ("SELECT 2", "SELECT 3", "SELECT 2;"), Limits())
    known = {0: Outcome("timeout", error="known")}
    executed: list[int] = []
    verifier = Verifier(on_statement=executed.append)
    outcomes = dict(verifier.verify(task, known))
    verifier.close()
    assert executed == [GOLD, 1]
    assert set(outcomes) == {GOLD, 1, 2}
    assert outcomes[2] is known[0]


def test_a_gold_that_was_given_up_is_not_executed_again(database):
    task = Task("1", (database,), "SELECT 1", ("SELECT 1", "SELECT 2"), Limits())
    given_up = GoldOutcome("timeout", error="known")
    executed: list[int] = []
    verifier = Verifier(on_statement=executed.append)
    outcomes = dict(verifier.verify(task, {GOLD: given_up}))
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
    first = make(tmp_path / "first.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    second = make(tmp_path / "second.sqlite", "CREATE TABLE t (a); INSERT INTO t VALUES (2)")
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
        def __init__(self, path, limits):
            opened.append((path, limits))
            super().__init__(path, limits)

    monkeypatch.setattr(verify, "Sandbox", Counted)
    verifier = Verifier()
    for limits in (Limits(), Limits(), HASTE):
        list(verifier.verify(Task("1", (database,), "SELECT 1", ("SELECT 2",), limits)))
    verifier.close()
    assert opened == [(database, Limits()), (database, HASTE)]


# ------------------------------------------------------------------------------------------------ test_suite


@pytest.fixture(scope="module")
def instances(tmp_path_factory) -> tuple[Path, Path]:
    """Two databases of one schema: in the first nobody is exactly 40, in the second somebody is."""
    folder = tmp_path_factory.mktemp("instances")
    schema = "CREATE TABLE singer (name TEXT, age INT); INSERT INTO singer VALUES ('Ann', 30), ('Bob', 50)"
    return (
        make(folder / "a.sqlite", schema),
        make(folder / "b.sqlite", schema + ", ('Cid', 40), ('Cid', 60)"),
    )


def test_one_instance_hides_a_difference_that_another_shows(instances):
    gold, candidate = "SELECT name FROM singer WHERE age > 40", "SELECT name FROM singer WHERE age >= 40"
    assert Verified(instances[:1], gold, candidate).matches == [ALL]
    assert Verified(instances, gold, candidate).matches == [Matches(True, True, True, False)]
    assert Verified(instances, gold, "SELECT name FROM singer WHERE NOT age <= 40").matches == [ALL]
    assert Verified(instances, gold, gold).matches == [ALL]


def test_the_other_rules_and_the_row_count_know_the_main_database_only(instances):
    verified = Verified(instances[::-1], "SELECT name FROM singer", "SELECT name FROM singer WHERE age < 99")
    assert (verified.gold.rows, verified.candidates[0].rows) == (4, 4)
    verified = Verified(instances, "SELECT name FROM singer", "SELECT name FROM singer WHERE age != 60")
    assert (verified.gold.rows, verified.candidates[0].rows) == (2, 2)
    assert verified.matches == [Matches(True, True, True, False)]


def test_a_candidate_that_fails_on_another_instance_is_ok_but_fails_test_suite(instances):
    overflow = "SELECT name FROM singer WHERE abs(CASE age WHEN 60 THEN -9223372036854775807 - 1 ELSE age END) > 0"
    (outcome,) = Verified(instances, "SELECT name FROM singer", overflow).candidates
    assert (outcome.status, outcome.error) == ("ok", None)
    assert outcome.matches == Matches(True, True, True, False)


def test_a_gold_that_fails_on_another_instance_fails_test_suite_for_every_candidate(instances):
    gold = "SELECT name FROM singer WHERE abs(CASE age WHEN 60 THEN -9223372036854775807 - 1 ELSE age END) > 0"
    verified = Verified(instances, gold, gold, "SELECT name FROM singer")
    assert verified.gold.status == "ok"
    assert verified.matches == [Matches(True, True, True, False)] * 2


def test_distinct_is_removed_for_test_suite_only(instances):
    many, once = "SELECT name FROM singer", "SELECT DISTINCT name FROM singer"
    both = instances[::-1][:1]  # where two are called Cid
    assert Verified(both, many, once).matches == [Matches(set=True, test_suite=True)]
    assert Verified(both, once, many).matches == [Matches(set=True, test_suite=True)]
    counts = "SELECT count(DISTINCT name) FROM singer", "SELECT count(name) FROM singer"
    assert Verified(both, *counts).matches == [Matches(test_suite=True)]
    text = "SELECT 'distinct', name FROM singer", "SELECT '', name FROM singer"
    assert Verified(both, *text).matches == [NOTHING]
