"""32,265 verdicts of the official evaluators on real model outputs, cell by cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from excot.execution.pool import verify_all
from excot.execution.task import Task, Verdict

Cell = tuple[int, str]  # question_id, system

# These three answers hold several statements. The official test-suite script keeps what stands before the first ";"
# and finds that right; here, as for SQLite, several statements are no answer.
SEVERAL_STATEMENTS = {
    (256, "pretrained_llama2_7b"),
    (338, "pretrained_llama2_7b"),
    (423, "pretrained_codellama_7b"),
}


class Benchmark:
    """One file of real candidates, verified on two processes, beside what the official evaluator said of each."""

    def __init__(self, folder: Path, name: str, database: Callable[[str], Path]):
        self.systems: list[str] = json.loads((folder / f"{name}.systems.json").read_text())
        self.expected: dict[str, dict] = json.loads((folder / f"{name}.expected.json").read_text())["systems"]
        lines = (folder / f"{name}.jsonl").read_text("utf-8").splitlines()
        self.questions = {row["question_id"]: row for row in map(json.loads, lines)}
        tasks = (
            Task(str(id), (database(row["db_id"]),), row["gold_sql"], tuple(row["candidates"]))
            for id, row in self.questions.items()
        )
        self.verdicts: dict[int, Verdict] = {int(id): verdict for id, verdict in verify_all(tasks, 2)}

    def cells(self) -> list[Cell]:
        return [(id, system) for id in self.questions for system in self.systems]

    def right(self, rule: str) -> set[Cell]:
        return {
            (id, system)
            for id, verdict in self.verdicts.items()
            for system, outcome in zip(self.systems, verdict.candidates, strict=True)
            if getattr(outcome.matches, rule)
        }

    def officially_right(self, rule: str) -> set[Cell]:
        wrong = {system: set(self.expected[system][f"{rule}_wrong"]) for system in self.systems}
        return {(id, system) for id, system in self.cells() if id not in wrong[system]}


@pytest.fixture(scope="module")
def spider(shared_data) -> Benchmark:
    databases = shared_data / "spider" / "database"
    return Benchmark(shared_data / "candidates", "spider_dev", lambda db_id: databases / db_id / f"{db_id}.sqlite")


@pytest.fixture(scope="module")
def superhero(shared_data) -> Benchmark:
    databases = shared_data / "bird" / "dev_20240627" / "dev_databases"
    return Benchmark(
        shared_data / "candidates", "bird_dev_superhero", lambda db_id: databases / db_id / f"{db_id}.sqlite"
    )


def test_birds_execution_accuracy_agrees_on_every_spider_answer(spider):
    assert len(spider.cells()) == 31_104
    assert spider.right("set") == spider.officially_right("set")


def test_spiders_test_suite_accuracy_agrees_on_every_spider_answer_of_one_statement(spider):
    ours, official = spider.right("test_suite"), spider.officially_right("test_suite")
    assert ours ^ official == SEVERAL_STATEMENTS
    assert official >= SEVERAL_STATEMENTS
    for id, system in SEVERAL_STATEMENTS:
        place = spider.systems.index(system)
        assert ";" in spider.questions[id]["candidates"][place].rstrip("; ")
        assert "one statement" in spider.verdicts[id].candidates[place].error


def test_birds_execution_accuracy_agrees_on_every_superhero_answer(superhero):
    assert len(superhero.cells()) == 1_161
    assert superhero.right("set") == superhero.officially_right("set")


def test_right_and_wrong_answers_are_both_many(spider, superhero):
    for benchmark in (spider, superhero):
        share = len(benchmark.right("set")) / len(benchmark.cells())
        assert 0.3 < share < 0.9


def test_every_gold_runs(spider, superhero):
    assert {verdict.gold.status for verdict in spider.verdicts.values()} == {"ok", "empty"}
    assert {verdict.gold.status for verdict in superhero.verdicts.values()} == {"ok"}


def test_an_ordered_match_is_a_multiset_match_is_a_set_match(spider):
    assert spider.right("ordered") <= spider.right("multiset") <= spider.right("set")
