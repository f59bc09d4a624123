"""What the benchmarks measure on: the same data for everybody, as hard as they say, and verdicts that agree."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.heavy_data import SIZES, make_database
from benchmarks.heavy_questions import CANDIDATES, TEMPLATES, make_questions
from benchmarks.trial import agreement, ours, try_out

SCALE = 0.0003
LIMIT = 0.4  # s


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    return make_database(tmp_path_factory.mktemp("shop") / "shop.sqlite", SCALE)


@pytest.fixture(scope="module")
def questions(shop) -> list[peers.Question]:
    made = make_questions(len(TEMPLATES), SCALE)
    return [{"database": str(shop), "gold": one.gold, "candidates": one.candidates} for one in made]


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_a_seed_makes_the_same_shop_everywhere_and_one_that_is_there_is_kept(shop, tmp_path):
    again = make_database(tmp_path / "again.sqlite", SCALE)
    assert contents(again) == contents(shop)
    with closing(sqlite3.connect(shop)) as connection:
        for table, size in SIZES.items():
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (max(20, round(size * SCALE)),)
    made = again.stat().st_mtime_ns
    assert make_database(again, SCALE).stat().st_mtime_ns == made
    assert contents(make_database(again, SCALE, seed=1)) != contents(shop)
    assert list(tmp_path.iterdir()) == [again]


def test_questions_repeat_themselves_and_have_runaways_as_promised():
    questions = make_questions()
    assert questions == make_questions() != make_questions(seed=1)
    kinds = [kind for question in questions for kind in question.kinds]
    assert len(kinds) == len(questions) * CANDIDATES == 6_400
    assert 0.025 < kinds.count("runaway") / len(kinds) < 0.035
    different = sum(len(set(question.candidates)) for question in questions)
    assert 0.3 < different / len(kinds) < 0.6


def test_only_what_is_meant_to_be_broken_fails(shop):
    with closing(peers.plain.connect(shop)) as connection:
        for question in make_questions(100, SCALE):
            for kind, candidate in zip(question.kinds, question.candidates, strict=True):
                if kind != "runaway":
                    rows = peers.plain.execute(connection, candidate, 10)
                    assert (rows is None) == (kind == "broken"), candidate


def test_peers_and_ours_agree_also_from_the_cache(questions, tmp_path):
    empty, full = (ours(questions, LIMIT, 2, str(tmp_path / "cache"))["verdicts"] for _ in range(2))
    assert {verdict for found in empty for verdict in found} == {"right", "wrong", "failed", "limit"}
    assert agreement(full, empty) == "matches equal"
    assert agreement(empty, peers.loop(questions, LIMIT)) == "matches equal"
    some = questions[::3]
    assert agreement(empty[::3], peers.loop(some, LIMIT, parse=True)) == "matches equal"
    assert agreement(empty[::3], peers.pool(some, LIMIT, 2)) == "matches equal"
    turned = [["wrong" if verdict == "right" else "right" for verdict in found] for found in empty]
    assert "DIFFER" in agreement(empty, turned)


def test_the_floor_executes_each_different_statement_once_and_no_further_than_the_limit(shop):
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    question = {"database": str(shop), "gold": "SELECT 1", "candidates": ["SELECT 1;", " SELECT 1", endless, endless]}
    trial = try_out("floor", [question], LIMIT, needed=[[1, 1, 1, 2, 2]])
    to_the_end, as_far_as_needed, statements = trial.found
    assert statements == 2
    assert as_far_as_needed < LIMIT <= to_the_end < LIMIT + 1
    assert to_the_end <= trial.seconds and trial.cpu_seconds > 0.1 and trial.peak_mb > 5
