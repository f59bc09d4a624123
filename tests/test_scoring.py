"""Scores of answers: on a small world, on runaways, on wrong input, and on whole systems of real answers."""

from __future__ import annotations

import doctest
import json
import math
import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from chain import cot
from hostile import ENDLESS, STUCK

from excot.errors import ExcotError
from excot.execution import RULES, Databases
from excot.metrics.compute import compute
from excot.metrics.scoring import Prediction, Scores, score
from excot.metrics.statistics import clustered_interval, pass_at_k, wilson_interval

NAMES = "SELECT name FROM item WHERE price > 10"
KINDS = "SELECT kind, price FROM item ORDER BY price"
RIGHT, OTHER, LATER = (
    "SELECT name FROM item WHERE price >= 20",
    "SELECT name FROM item",
    "SELECT name FROM item WHERE 1",
)
REFERENCE = {"gold_sql": NAMES, "db_id": "shop"}


@pytest.fixture
def scored(databases: Path):
    """`score` with one worker and little patience."""

    def scored(predictions: Sequence[Prediction], references: Sequence[Any] = (), **options: Any) -> Scores:
        references = references or [REFERENCE] * len(predictions)
        return score(predictions, references, databases, **{"processes": 1, "timeout": 5.0, **options})

    return scored


# ------------------------------------------------------------------------------------------------ one answer each


def test_what_became_of_every_question(scored):
    references = [
        {"id": "a", "db_id": "shop", "gold_sql": NAMES, "difficulty": "simple", "question": "Which?"},
        {"db_id": "zoo", "gold_sql": "SELECT count(*) FROM animal"},
    ]
    first, second = scored([cot(RIGHT), "SELECT nope FROM animal"], references).details
    gold, (sample,) = first.pop("gold"), first.pop("samples")
    assert first == {"id": "a", "db_id": "shop", "difficulty": "simple", "gold_sql": NAMES, "right": 1.0}
    assert gold == {"status": "ok", "error": None, "seconds": gold["seconds"], "rows": 3}
    assert gold["seconds"] > 0 and sample["seconds"] > 0
    assert sample == {
        "sql": RIGHT,
        "status": "ok",
        "matches": dict.fromkeys(RULES, True),
        "error": None,
        "seconds": sample["seconds"],
        "rows": 3,
    }
    assert (second["id"], second["difficulty"], second["right"]) == ("1", None, 0.0)
    assert (second["samples"][0]["status"], second["samples"][0]["rows"]) == ("error", None)
    assert second["samples"][0]["matches"] == dict.fromkeys(RULES, False)
    assert "nope" in second["samples"][0]["error"]


def test_the_answers_sql_is_extracted_as_everywhere(scored):
    answers = [RIGHT, f"  {RIGHT};\n", cot(RIGHT), cot(OTHER) + cot(RIGHT), cot(RIGHT) + "\n```python\nprint()\n```"]
    scores = scored([*answers, None, "", " \n", "I cannot say.", cot(""), f"```sql\n{RIGHT}"])
    samples = [row["samples"][0] for row in scores.details]
    assert [sample["status"] for sample in samples] == ["ok"] * 5 + ["no_sql"] * 6
    assert [sample["sql"] for sample in samples] == [RIGHT, f"{RIGHT};", RIGHT, RIGHT, RIGHT] + [None] * 6
    found = scores.summary()
    assert (found["exec_acc"], found["valid_rate"]) == (5 / 11, 5 / 11)
    assert "pass_at_1" not in found and "vote" not in scores.details[0]


def test_the_summary_of_one_answer_each(scored):
    references = [
        {"db_id": "shop", "gold_sql": KINDS, "difficulty": "simple"},
        {"db_id": "shop", "gold_sql": KINDS, "difficulty": "simple"},
        {"db_id": "shop", "gold_sql": KINDS, "difficulty": "hard"},
        {"db_id": "zoo", "gold_sql": "SELECT DISTINCT weight > 3 FROM animal", "difficulty": None},
        {"db_id": "zoo", "gold_sql": "SELECT name FROM animal", "difficulty": math.nan},
    ]
    answers = [
        "SELECT kind, price FROM item ORDER BY price, id",
        "SELECT kind, price FROM item ORDER BY price DESC",
        "SELECT price, kind FROM item ORDER BY price",
        "SELECT weight > 3 FROM animal",
        ENDLESS,
    ]
    found = scored(answers, references, timeout=0.3).summary()
    low, high = wilson_interval(3, 5)
    simple_low, simple_high = wilson_interval(2, 2)
    hard_low, hard_high = wilson_interval(0, 1)
    assert found == {
        "exec_acc": 0.6,
        "exec_acc_low": low,
        "exec_acc_high": high,
        "exec_acc_set": 0.6,
        "exec_acc_multiset": 0.4,
        "exec_acc_ordered": 0.2,
        "exec_acc_test_suite": 0.6,
        "valid_rate": 0.8,
        "timeout_rate": 0.2,
        "questions": 5,
        "samples": 5,
        "samples_min": 1,
        "samples_max": 1,
        "ceiling": 1.0,
        "gold_failed": 0,
        "gold_timeout": 0,
        "gold_empty": 0,
        "exec_acc_difficulty_hard": 0.0,
        "exec_acc_difficulty_hard_low": hard_low,
        "exec_acc_difficulty_hard_high": hard_high,
        "questions_difficulty_hard": 1,
        "exec_acc_difficulty_simple": 1.0,
        "exec_acc_difficulty_simple_low": simple_low,
        "exec_acc_difficulty_simple_high": simple_high,
        "questions_difficulty_simple": 2,
        "exec_acc_db_shop": 2 / 3,
        "questions_db_shop": 3,
        "exec_acc_db_zoo": 0.5,
        "questions_db_zoo": 2,
    }
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_asked_for_is_the_score(scored, rule):
    answers = ["SELECT kind, price FROM item ORDER BY price DESC", "SELECT price, kind FROM item ORDER BY price"]
    scores = scored(answers, [{"db_id": "shop", "gold_sql": KINDS}] * 2, rule=rule)
    found = scores.summary()
    assert found["exec_acc"] == found[f"exec_acc_{rule}"] == (0.0 if rule == "ordered" else 0.5)
    assert scores.rule == rule
    assert [row["right"] for row in scores.details] == [rule in ("set", "multiset"), rule == "test_suite"]


def test_the_ceiling_is_what_golds_allow(scored):
    golds = [NAMES, "SELECT name FROM item WHERE 0", "SELECT nope", ENDLESS, "SELECT zeroblob(2000000000)"]
    found = scored(golds, [{"db_id": "shop", "gold_sql": gold} for gold in golds], timeout=0.3).summary()
    assert (found["ceiling"], found["exec_acc"]) == (0.4, 0.4)
    assert (found["gold_failed"], found["gold_timeout"], found["gold_empty"]) == (2, 1, 1)


def test_databases_may_be_given_open_or_as_a_path_of_any_kind(databases, scored):
    for given in (databases, str(databases), Databases(databases)):
        assert score([RIGHT], [REFERENCE], given, processes=1).summary()["exec_acc"] == 1.0
    assert score(iter([RIGHT]), iter([REFERENCE]), databases, processes=1).summary()["exec_acc"] == 1.0


def test_progress_is_told_question_by_question(scored):
    told = []
    scored([RIGHT] * 5, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]


def test_missing_ids_and_difficulties_of_any_kind_are_no_failure(scored):
    keys = [{}, {"id": None, "difficulty": None}, {"id": 7, "difficulty": 3}, {"difficulty": ""}, {"id": math.nan}]
    rows = scored([RIGHT] * 5, [REFERENCE | more for more in keys]).details
    assert [row["id"] for row in rows] == ["0", "1", "7", "3", "4"]
    assert [row["difficulty"] for row in rows] == [None, None, "3", None, None]


# ------------------------------------------------------------------------------------------------ n samples


def test_the_summary_of_samples(scored):
    samples = [
        [RIGHT, OTHER, NAMES, "SELECT nope"],
        [OTHER, LATER, RIGHT, None],
        [OTHER, RIGHT, "SELECT nope", "no SQL at all"],
        ["SELECT nope", None, "", "SELECT nope"],
    ]
    scores = scored(samples)
    assert [row["right"] for row in scores.details] == [0.5, 0.25, 0.25, 0.0]
    assert [row["vote"] for row in scores.details] == [0, 0, 0, 0]
    found = scores.summary()
    low, high = clustered_interval([0.5, 0.25, 0.25, 0.0], 16)
    vote_low, vote_high = wilson_interval(1, 4)
    expected = {
        "exec_acc": 0.25,
        "exec_acc_low": low,
        "exec_acc_high": high,
        "exec_acc_set": 0.25,
        "valid_rate": 8 / 16,
        "questions": 4,
        "samples": 16,
        "samples_min": 4,
        "samples_max": 4,
        "pass_at_1": 0.25,
        "pass_at_2": (pass_at_k(4, 2, 2) + 2 * pass_at_k(4, 1, 2)) / 4,
        "pass_at_4": 0.75,
        "exec_acc_vote": 0.25,
        "exec_acc_vote_low": vote_low,
        "exec_acc_vote_high": vote_high,
        "best_of_n": 0.75,
        "exec_acc_db_shop": 0.25,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert [key for key in found if key.startswith("pass_at")] == ["pass_at_1", "pass_at_2", "pass_at_4"]


def test_samples_vote_by_their_results_and_not_by_their_text(scored):
    votes = {
        (OTHER, RIGHT, NAMES): 1,
        (OTHER, RIGHT, "SELECT DISTINCT name FROM item WHERE price > 5"): 1,
        (NAMES, OTHER, LATER, OTHER): 1,
        (OTHER, RIGHT): 0,
        (None, RIGHT): 1,
        ("SELECT nope", "SELECT nope", RIGHT): 2,
        ("SELECT 1", "SELECT 2", "SELECT 1.0"): 0,
        (RIGHT,): 0,
        (None, "SELECT nope", ENDLESS): 0,
        (): None,
    }
    scores = scored([list(samples) for samples in votes], timeout=0.5)
    assert [row["vote"] for row in scores.details] == list(votes.values())
    assert scores.summary()["exec_acc_vote"] == 5 / 10


def test_questions_may_have_different_numbers_of_samples_or_none(scored):
    scores = scored([[RIGHT, OTHER, OTHER], RIGHT, [], [OTHER, RIGHT]])
    assert [row["right"] for row in scores.details] == pytest.approx([1 / 3, 1, 0, 1 / 2])
    assert [row["vote"] for row in scores.details] == [1, 0, None, 0]
    found = scores.summary()
    assert (found["samples"], found["samples_min"], found["samples_max"]) == (6, 0, 3)
    assert found["exec_acc"] == found["pass_at_1"] == pytest.approx((1 / 3 + 1 + 0 + 1 / 2) / 4)
    assert "pass_at_2" not in found  # the second question has one sample only
    assert found["best_of_n"] == 0.75


def test_powers_of_two_and_the_number_of_samples(scored):
    found = scored([[RIGHT, *[OTHER] * 5]]).summary()
    assert {key: found[key] for key in found if key.startswith("pass_at")} == pytest.approx(
        {"pass_at_1": 1 / 6, "pass_at_2": 1 / 3, "pass_at_4": 2 / 3, "pass_at_6": 1.0}
    )


def test_questions_without_any_sample_are_wrong(scored):
    found = scored([[], []]).summary()
    assert (found["exec_acc"], found["exec_acc_vote"], found["best_of_n"], found["samples"]) == (0, 0, 0, 0)
    assert (found["valid_rate"], found["ceiling"]) == (0.0, 1.0)
    assert "pass_at_1" not in found


def test_the_same_answer_over_and_over_is_no_surer_than_once(scored):
    answers = [RIGHT, RIGHT, OTHER, RIGHT]
    once, often = scored(answers).summary(), scored([[answer] * 8 for answer in answers]).summary()
    for key in ("exec_acc", "exec_acc_low", "exec_acc_high"):
        assert often[key] == pytest.approx(once[key])


# ------------------------------------------------------------------------------------------------ extras


def test_soft_f1_on_request(scored):
    answers = [RIGHT, "SELECT name FROM item WHERE price > 50", OTHER, None, "SELECT nope", NAMES]
    scores = scored(answers, extras=["soft_f1"])
    values = [row["soft_f1"] for row in scores.details]
    assert values == [row["samples"][0]["soft_f1"] for row in scores.details]
    assert values[0] == values[5] == 1.0
    assert 0 < values[2] < 1
    assert values[1] == values[3] == values[4] == 0.0  # its one row stands beside another of the gold
    assert scores.summary()["soft_f1"] == pytest.approx(sum(values) / 6)
    assert "soft_f1" not in scored(answers).summary()


def test_efficiency_on_request(scored):
    answers = [RIGHT, OTHER, None, NAMES, [RIGHT, OTHER]]
    scores = scored(answers, extras=["ves", "r_ves"], repetitions=3)
    samples = [row["samples"][0] for row in scores.details]
    assert [sample["repetitions"] for sample in samples] == [3, None, None, None, 3]
    assert [sample["time_ratio"] is None for sample in samples] == [False, True, True, False, False]
    assert samples[0]["ves"] == math.sqrt(samples[0]["time_ratio"])
    assert samples[0]["r_ves"] ** 2 == pytest.approx(
        min((0.25, 0.5, 0.75, 1, 1.25), key=lambda r: abs(r - samples[0]["r_ves"] ** 2))
    )
    assert (samples[3]["ves"], samples[3]["r_ves"], samples[1]["ves"], samples[2]["r_ves"]) == (1, 1, 0, 0)
    found = scores.summary()
    assert (found["ves_repetitions"], found["ves_repetitions_min"]) == (3, 3)
    for name in ("ves", "r_ves"):
        assert scores.details[4][name] == samples[4][name] / 2
        assert found[name] == pytest.approx(sum(row[name] for row in scores.details) / 5)
    assert set(scored([RIGHT], extras="ves", repetitions=1).summary()) & {"ves", "r_ves", "soft_f1"} == {"ves"}


# ------------------------------------------------------------------------------------------------ runaways, processes


def test_runaways_cost_their_own_question_only(scored):
    everything = "SELECT * FROM item a, item b, item c, item d, item e, item f, item g, item h, item i, item j"
    samples = [[RIGHT, ENDLESS, STUCK, everything, RIGHT + " "], [STUCK, NAMES, f"{NAMES} "], [RIGHT]]
    scores = scored(samples, timeout=0.5, extras=["soft_f1"])
    first, second, third = scores.details
    assert [sample["status"] for sample in first["samples"]] == ["ok", "timeout", "timeout", "ok", "ok"]
    assert (first["right"], second["right"], third["right"]) == (0.4, 2 / 3, 1)
    assert (first["vote"], second["vote"], third["vote"]) == (0, 1, 0)  # after a worker was replaced as well
    assert first["samples"][3]["soft_f1"] == 0.0
    assert scores.summary()["timeout_rate"] == 3 / 9


def test_a_gold_that_never_ends_costs_its_own_question_only(scored):
    scores = scored([[RIGHT, STUCK], [RIGHT]], [REFERENCE | {"gold_sql": STUCK}, REFERENCE], timeout=0.5)
    assert [row["gold"]["status"] for row in scores.details] == ["timeout", "ok"]
    assert [row["right"] for row in scores.details] == [0, 1]
    assert [row["vote"] for row in scores.details] == [0, 0]
    assert (scores.summary()["ceiling"], scores.summary()["gold_timeout"]) == (0.5, 1)


def test_two_processes_say_what_one_says(databases):
    chance = random.Random(1)
    statements = [
        RIGHT,
        OTHER,
        NAMES,
        LATER,
        None,
        "SELECT nope",
        "SELECT name, price FROM item",
        "SELECT count(*) FROM item",
    ]
    samples = [chance.choices(statements, k=chance.randint(0, 5)) for _ in range(60)]
    references = [REFERENCE | {"gold_sql": chance.choice([NAMES, OTHER])} for _ in samples]
    one, two = (score(samples, references, databases, processes=n, extras=["soft_f1"]) for n in (1, 2))
    assert one.summary() == two.summary()
    for row in (*one.details, *two.details):
        for outcome in (row["gold"], *row["samples"]):
            outcome["seconds"] = None
    assert one.details == two.details


# ------------------------------------------------------------------------------------------------ wrong input

WRONG = {
    "lengths": ({"predictions": ["SELECT 1"] * 3}, "3 predictions and 2 references"),
    "nothing": ({"predictions": [], "references": []}, "nothing to score"),
    "one text": ({"predictions": "SELECT 1"}, "predictions are of type str"),
    "no predictions": ({"predictions": None}, "predictions are of type NoneType"),
    "a table": ({"references": {"gold_sql": [NAMES] * 2, "db_id": ["shop"] * 2}}, "references are of type dict"),
    "a number": ({"predictions": ["SELECT 1", 7]}, "prediction 1 is of type int (1 of 2"),
    "a mapping": ({"predictions": [{"sql": "x"}, b"x"]}, "prediction 0 is of type dict (2 of 2"),
    "an empty cell": ({"predictions": ["x", math.nan]}, "prediction 1 is of type float (1 of 2"),
    "samples": ({"predictions": ["x", ["y", None, ["z"]]]}, "prediction 1 has a sample 2 of type list (1 of 2"),
    "text": ({"references": ["x", REFERENCE]}, "reference 0 is of type str (1 of 2"),
    "no gold": ({"references": [REFERENCE, {"db_id": "shop"}]}, "reference 1 has no gold_sql (1 of 2"),
    "empty gold": ({"references": [{"gold_sql": "", "db_id": "shop"}] * 2}, "reference 0 has no gold_sql (2 of 2"),
    "a list of golds": (
        {"references": [REFERENCE, REFERENCE | {"gold_sql": [NAMES]}]},
        "reference 1 has a gold_sql of",
    ),
    "no db_id": ({"references": [REFERENCE, {"gold_sql": NAMES, "db_id": None}]}, "reference 1 has no db_id (1 of 2"),
    "unknown database": (
        {"references": [REFERENCE, REFERENCE | {"db_id": "nowhere"}]},
        "no database 'nowhere' of reference 1 in",
    ),
    "a path": ({"references": [REFERENCE | {"db_id": "../shop"}, REFERENCE]}, "(1 of 2 databases are missing)"),
    "no folder": ({"databases": "nowhere/at/all"}, "no such databases folder: nowhere/at/all"),
    "no databases": ({"databases": None}, "databases is of type NoneType"),
    "rule": ({"rule": "bag"}, "there is no rule 'bag': give one of set, multiset, ordered, test_suite"),
    "extra": ({"extras": ["f1"]}, "there is no extra 'f1': give some of soft_f1, ves, r_ves"),
    "timeout": ({"timeout": 0}, "timeout is 0"),
    "endless timeout": ({"timeout": math.nan}, "timeout is nan"),
    "text for a timeout": ({"timeout": "5"}, "timeout is 5"),
    "repetitions": ({"repetitions": 0}, "repetitions is 0"),
    "processes": ({"processes": 0}, "processes is 0"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_said_in_one_line(databases, arguments, message):
    right = {"predictions": ["SELECT 1"] * 2, "references": [REFERENCE] * 2, "databases": databases}
    with pytest.raises(ExcotError) as error:
        score(**right | arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path):
    (tmp_path / "shop.sqlite").write_text("name,price\n")
    with pytest.raises(ExcotError, match="is not a SQLite file"):
        score(["SELECT 1"], [REFERENCE], tmp_path, processes=1)


def test_nothing_scored_has_no_summary():
    with pytest.raises(ExcotError, match="nothing to sum up"):
        Scores("set", []).summary()


# ------------------------------------------------------------------------------------------------ as one call


def test_compute_is_score_and_its_summary(databases):
    options = {"rule": "test_suite", "timeout": 5.0, "processes": 1, "extras": ["soft_f1"]}
    expected = score([RIGHT, OTHER], [REFERENCE] * 2, databases, **options)
    found = compute(predictions=[RIGHT, OTHER], references=[REFERENCE] * 2, databases=databases, **options)
    assert found == expected.summary()
    found = compute([RIGHT, OTHER], [REFERENCE] * 2, databases, return_details=True, **options)
    assert [row["right"] for row in found.pop("details")] == [1, 0]
    assert found == expected.summary()


def test_the_examples_of_the_documentation():
    results = doctest.testmod(import_module("excot.metrics.compute"))
    assert results.attempted > 10 and results.failed == 0


def test_scoring_imports_nothing_heavy():
    program = "import sys, excot.metrics.compute; print(*{'torch', 'datasets', 'numpy', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ------------------------------------------------------------------------------------------------ real answers

# Answers of several statements, the first of which the official test-suite script runs and finds right.
SEVERAL_STATEMENTS = {"pretrained_llama2_7b": {256, 338}, "pretrained_codellama_7b": {423}}
SPIDER = ["C3_SQL", "RESDSQL_NatSQL_3B", "SFT_CodeS_1B", *SEVERAL_STATEMENTS]


def benchmark_of(folder: Path, name: str) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """The questions with all systems' answers, the systems, and what the official script says of each."""
    rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
    systems = json.loads((folder / f"{name}.systems.json").read_text())
    return rows, systems, json.loads((folder / f"{name}.expected.json").read_text())["systems"]


def answers_of(rows: list[dict[str, Any]], place: int) -> list[str]:
    return [row["candidates"][place] for row in rows]


def references_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": row["question_id"], **row} for row in rows]


def wrong(scores: Scores, rule: str) -> set[int]:
    return {int(row["id"]) for row in scores.details if not row["samples"][0]["matches"][rule]}


@pytest.mark.parametrize("system", SPIDER)
def test_whole_spider_systems_score_as_by_the_official_scripts(shared_data, system):
    rows, systems, expected = benchmark_of(shared_data / "candidates", "spider_dev")
    answers = answers_of(rows, systems.index(system))
    scores = score(answers, references_of(rows), shared_data / "spider" / "database", rule="test_suite")
    found, official = scores.summary(), expected[system]
    several = SEVERAL_STATEMENTS.get(system, set())
    assert wrong(scores, "set") == set(official["set_wrong"])
    assert wrong(scores, "test_suite") == set(official["test_suite_wrong"]) | several
    assert found["exec_acc_set"] == official["set"] / 972
    assert found["exec_acc"] == (official["test_suite"] - len(several)) / 972
    assert (found["questions"], found["ceiling"], found["gold_empty"]) == (972, 1.0, 49)


def test_whole_bird_systems_score_as_by_the_official_script(shared_data):
    rows, systems, expected = benchmark_of(shared_data / "candidates", "bird_dev_superhero")
    databases = shared_data / "bird" / "dev_20240627" / "dev_databases"
    samples = [row["candidates"] for row in rows]
    together = score(samples, references_of(rows), databases)
    for place, system in enumerate(systems):
        scores = score(answers_of(rows, place), references_of(rows), databases)
        assert wrong(scores, "set") == set(expected[system]["set_wrong"])
        assert scores.summary()["exec_acc"] == expected[system]["set"] / 129
        assert [row["samples"][place]["matches"] for row in together.details] == [
            row["samples"][0]["matches"] for row in scores.details
        ]
    found = together.summary()
    assert found["exec_acc"] == pytest.approx(sum(expected[system]["set"] for system in systems) / 129 / 9)
    solved = {row["id"] for row in together.details if row["right"]}
    assert found["best_of_n"] == found["pass_at_9"] == len(solved) / 129
    difficulties = {row["difficulty"] for row in rows}
    assert sum(found[f"questions_difficulty_{name}"] for name in difficulties) == 129
    assert found["exec_acc_low"] < found["exec_acc"] < found["exec_acc_vote"] < found["best_of_n"]


def test_the_vote_on_real_answers_is_that_of_comparing_all_results(shared_data):
    rows, _, _ = benchmark_of(shared_data / "candidates", "bird_dev_superhero")
    databases = shared_data / "bird" / "dev_20240627" / "dev_databases"
    scores = score([row["candidates"] for row in rows], references_of(rows), databases)
    connection = sqlite3.connect(f"file:{databases / 'superhero' / 'superhero.sqlite'}?mode=ro", uri=True)
    for row, detail in zip(rows, scores.details, strict=True):
        results = []
        for sql, sample in zip(row["candidates"], detail["samples"], strict=True):
            results.append(set(connection.execute(sql)) if sample["status"] == "ok" else None)
        agreeing = [0 if result is None else results.count(result) for result in results]
        assert detail["vote"] == agreeing.index(max(agreeing))
    connection.close()
