"""All of verification against a slow and obvious model of it: whatever the processes, the order and the cache.

The model executes every statement of every question by itself, keeps all rows, and tries every permutation of columns.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from chain import make_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_compare import model_of_test_suite

from excot.execution import Cache, Limits, Matches, Task, Verdict
from excot.execution.pool import Pool

SCHEMA = """
    CREATE TABLE t (a INT, b TEXT, c REAL);
    INSERT INTO t VALUES (1, 'x', 1.0), (2, 'y', 2.5), (2, 'x', 2.0), (NULL, NULL, NULL), (3, '1', 1), (1, 'x', 1.0);
    CREATE TABLE u (a INT, d TEXT);
    INSERT INTO u VALUES (1, 'x'), (2, NULL), (5, 'y'), (2, 'y');
"""
OTHER_ROWS = "INSERT INTO t VALUES (7, 'z', 0.5), (2, 'y', 2.5); DELETE FROM u WHERE a = 5"


@pytest.fixture(scope="module")
def databases(tmp_path_factory) -> list[tuple[Path, ...]]:
    """One database of one file, and one of two."""
    folder = tmp_path_factory.mktemp("model")
    first = make_database(folder / "first.sqlite", SCHEMA)
    return [(first,), (make_database(folder / "second.sqlite", f"{SCHEMA}; {OTHER_ROWS}"), first)]


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, Pool]]:
    """Pools of one to three workers."""
    pools = {processes: Pool(processes) for processes in (1, 2, 3)}
    yield pools
    for pool in pools.values():
        pool.close()


# ------------------------------------------------------------------------------------------------ the model


class Modelled(NamedTuple):
    gold: str
    statuses: list[str]
    matches: list[Matches]


def model(task: Task) -> Modelled:
    rows = execute(task.databases[0], task.gold)
    gold = "error" if rows is None else "ok" if rows else "empty"
    judged = [judge(task, candidate, rows) for candidate in task.candidates]
    return Modelled(gold, [status for status, _ in judged], [matches for _, matches in judged])


def judge(task: Task, candidate: str, gold: list[tuple] | None) -> tuple[str, Matches]:
    rows = execute(task.databases[0], candidate)
    if rows is None:
        return "error", Matches()
    if gold is None:
        return "ok", Matches()
    multiset = Counter(rows) == Counter(gold)
    return "ok", Matches(
        set=set(rows) == set(gold),
        multiset=multiset,
        ordered=multiset and (rows == gold or not re.search(r"ORDER BY \w+( DESC)?$", task.gold)),
        test_suite=all(suite_holds_on(path, task.gold, candidate) for path in task.databases),
    )


def suite_holds_on(path: Path, gold: str, candidate: str) -> bool:
    expected, rows = (execute(path, sql.replace("DISTINCT", "")) for sql in (gold, candidate))
    if expected is None or rows is None:
        return False
    return model_of_test_suite(expected, rows, ordered="order by" in gold.lower())


def execute(path: Path, sql: str) -> list[tuple] | None:
    connection = sqlite3.connect(path)
    try:
        cursor = connection.execute(sql)
        return None if cursor.description is None else cursor.fetchall()  # nothing to execute is no query
    except sqlite3.Error:
        return None
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------ questions

COLUMNS = st.lists(
    st.sampled_from(["a", "b", "c", "1", "1.0", "'1'", "NULL", "count(*)", "count(DISTINCT b)", "missing"]),
    min_size=1,
    max_size=3,
).map(", ".join)
WHERE = st.sampled_from(["", "WHERE a = 2", "WHERE a > 1", "WHERE a >= 2", "WHERE 0", "WHERE b = 'x'", "WHERE abs(a)"])
ORDER = st.sampled_from(["", "", "ORDER BY a", "ORDER BY a DESC", "ORDER BY b"])
SELECTS = st.builds(
    lambda distinct, columns, source, where, order: " ".join(
        f"SELECT {distinct} {columns} FROM {source} {where} {order}".split()
    ),
    st.sampled_from(["", "DISTINCT"]),
    COLUMNS,
    st.sampled_from(["t", "(SELECT * FROM t ORDER BY a)", "t JOIN (SELECT a AS e, d FROM u) ON a = e"]),
    WHERE,
    ORDER,
)
CONSTANTS = st.sampled_from(["SELECT 1", "SELECT 1.0", "SELECT 1 UNION ALL SELECT 1", "SELECT '1'", "VALUES (1), (2)"])
BROKEN = st.sampled_from(["", "SELEC 1", "SELECT", "SELECT 1; SELECT 2", "SELECT a FROM nowhere"])
STATEMENTS = st.one_of(SELECTS, SELECTS, SELECTS, CONSTANTS, BROKEN)


@st.composite
def questions(draw: st.DrawFn) -> list[tuple[int, str, tuple[str, ...]]]:
    """Questions on either database: golds that come again, candidates that come again, and what they differ by."""
    golds = draw(st.lists(STATEMENTS.filter(bool), min_size=1, max_size=3))
    pool = draw(st.lists(STATEMENTS, min_size=3, max_size=10)) + golds + [f" {golds[0]} ;"]
    return draw(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.sampled_from(golds),
                st.lists(st.sampled_from(pool), max_size=8).map(tuple),
            ),
            min_size=1,
            max_size=6,
        )
    )


def as_modelled(verdict: Verdict) -> Modelled:
    outcomes = verdict.candidates
    return Modelled(
        verdict.gold.status, [outcome.status for outcome in outcomes], [outcome.matches for outcome in outcomes]
    )


def untimed(verdicts: dict[str, Verdict]) -> dict[str, Sequence]:
    """All of a verdict but times."""
    return {
        id: (
            (verdict.gold.status, verdict.gold.error, verdict.gold.rows),
            [(outcome.status, outcome.matches, outcome.error, outcome.rows) for outcome in verdict.candidates],
        )
        for id, verdict in verdicts.items()
    }


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(asked=questions(), order=st.randoms(use_true_random=False), processes=st.integers(1, 3), half=st.integers(0, 6))
def test_verdicts_are_the_models_whatever_the_processes_the_order_and_the_cache(
    databases, pools, tmp_path_factory, asked, order, processes, half
):
    limits = Limits(seconds=60)
    tasks = [
        Task(str(number), databases[which], gold, candidates, limits)
        for number, (which, gold, candidates) in enumerate(asked)
    ]
    expected = {task.id: model(task) for task in tasks}
    alone = dict(pools[1].verify_all(tasks))
    assert {id: as_modelled(verdict) for id, verdict in alone.items()} == expected

    shuffled = list(tasks)
    order.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("cache")
    with Cache(folder) as cache:
        dict(pools[1].verify_all(shuffled[:half], cache))
    with Cache(folder) as cache:
        partly_known = dict(pools[processes].verify_all(shuffled, cache))
        known = dict(pools[processes].verify_all(tasks, cache))
    assert untimed(partly_known) == untimed(known) == untimed(alone)
