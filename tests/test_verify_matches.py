"""When a candidate's result equals the gold's: by each rule, and on several instances of a database."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from chain import make_database
from singers import ALL, NOTHING, SINGERS, Verified

from excot.execution.compare import Matches
from excot.execution.sandbox import Limits
from excot.execution.task import GOLD, Task
from excot.execution.verify import Verifier


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_database(tmp_path_factory.mktemp("singers") / "singers.sqlite", SINGERS)


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


# ------------------------------------------------------------------------------------------------ test_suite


@pytest.fixture(scope="module")
def instances(tmp_path_factory) -> tuple[Path, Path]:
    """Two databases of one schema: in the first nobody is exactly 40, in the second somebody is."""
    folder = tmp_path_factory.mktemp("instances")
    schema = "CREATE TABLE singer (name TEXT, age INT); INSERT INTO singer VALUES ('Ann', 30), ('Bob', 50)"
    return (
        make_database(folder / "a.sqlite", schema),
        make_database(folder / "b.sqlite", schema + ", ('Cid', 40), ('Cid', 60)"),
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
