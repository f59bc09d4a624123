"""``excot compare``: the difference of two scored systems, whether it is more than noise, and what flipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chain import make_data, read_data, write_questions
from command import done, excot

from excot.config import CompareConfig
from excot.metrics.comparison import compare_runs


def make_run(folder: Path, count: int = 100, first: int = 0, gold: str = "SELECT 7", **columns: Any) -> str:
    """A run folder with questions to which ``SELECT 7`` is right."""
    data = folder / "data"
    if not data.is_dir():
        make_data(data, 0)
    row = {"db_id": "shop", "gold_sql": gold, **columns}
    rows = [{"question": f"What about number {k:03d}?", **row} for k in range(first, first + count)]
    for place, row in enumerate(rows):
        row["difficulty"] = ("simple", "challenging")[place % 2]
    write_questions(data, rows)
    return read_data(data, folder / "run")


def score(run: str, name: str, rights: str, *options: object) -> str:
    """Score a system that is right where there is a ``1``; it then is ``RUN:name``."""
    path = Path(run).parent / "mine.sql"
    path.write_text("".join(f"SELECT {7 if right == '1' else 8}\n" for right in rights))
    done("score", "--out", run, "--predictions", path, "--name", name, "--processes", 1, *options)
    return f"{run}:{name}"


def compared(*arguments: object) -> str:
    return done("compare", *arguments)


def refused(*arguments: object) -> str:
    return excot("compare", *arguments).error()


def table(said: str) -> dict[str, list[str]]:
    """The cells of every row, its interval in one."""
    lines = said.split("\n\n")[1].splitlines()[1:]
    return {line.split()[0]: line.replace(" to ", "..").replace(".. ", "..").split()[1:] for line in lines}


def test_a_large_gain_is_more_than_noise(tmp_path):
    run = make_run(tmp_path)
    said = compared(score(run, "base", "1" * 40 + "0" * 60), score(run, "trained", "1" * 75 + "0" * 25))
    assert said.startswith(f"baseline  {run}:base\nsystem    {run}:trained\n100 questions, by rule set\n")
    assert "trained is better than base: a gain of 35.0 points is more than noise.\n" in said
    count, before, after, difference, interval, p, gained, lost = table(said)["all"]
    assert [count, before, after, difference, p, gained, lost] == [
        "100",
        "40.0%",
        "75.0%",
        "+35.0",
        "<0.0001",
        "35",
        "0",
    ]
    low, high = map(float, interval.split(".."))
    assert 24 < low < 35 < high < 46
    assert "base is worse than trained: a loss of 35.0 points is more than noise" in compared(
        f"{run}:trained", f"{run}:base"
    )


def test_a_small_gain_is_called_noise_with_what_it_would_take(tmp_path):
    run = make_run(tmp_path)
    said = compared(score(run, "base", "10" * 50), score(run, "trained", "10" * 45 + "1101011011"))
    assert "+2.0 points cannot be told from noise: on 100 questions like these it takes about " in said
    assert table(said)["all"][3] == "+2.0" and float(table(said)["all"][5]) > 0.5
    assert "more than noise.\n" not in said


def test_flips_that_cancel_out_are_noise_however_many(tmp_path):
    run = make_run(tmp_path)
    said = compared(score(run, "base", "1" * 50 + "0" * 50), score(run, "other", "0" * 50 + "1" * 50))
    assert "+0.0 points cannot be told from noise" in said and table(said)["all"][6:] == ["50", "50"]


def test_equal_systems_do_not_differ(tmp_path):
    run = make_run(tmp_path, 10)
    said = compared(score(run, "a", "1100110011"), score(run, "b", "1100110011"))
    assert "No difference: both are right on the same questions." in said and "gained (" not in said
    assert table(said)["all"][2:] == ["60.0%", "+0.0", "+0.0..+0.0", "1.0000", "0", "0"]
    assert "No difference" in compared(f"{run}:a", f"{run}:a")


def test_each_difficulty_is_compared_by_itself(tmp_path):
    run = make_run(tmp_path, 40)
    said = compared(score(run, "a", "10" * 20), score(run, "b", "11" * 20))
    rows = table(said)
    assert list(rows) == ["all", "simple", "challenging"]
    assert rows["simple"][:4] == ["20", "100.0%", "100.0%", "+0.0"] and rows["simple"][5] == "1.0000"
    assert rows["challenging"][:4] == ["20", "0.0%", "100.0%", "+100.0"] and rows["challenging"][5] == "<0.0001"


def test_the_flipped_questions_are_counted_shown_and_written(tmp_path):
    run, out = make_run(tmp_path, 20), tmp_path / "flips.jsonl"
    systems = score(run, "a", "11" + "0" * 18), score(run, "b", "01" + "1" * 10 + "0" * 8)
    said = compared(*systems)
    gained = said[said.index("10 gained (wrong in the baseline, right in the system)") :].split("\n\n")[0].splitlines()
    assert [line.split()[:2] for line in gained[1:6]] == [[f"data-train-{k:04d}", "shop"] for k in range(2, 7)]
    assert gained[6:] == ["  and 5 more; --out FILE.jsonl writes all of them"]
    assert said.endswith(
        "1 lost (right in the baseline, wrong in the system)\n  data-train-0000  shop  What about number 000?\n"
    )
    assert compared(*systems, "--out", out).endswith(f"\n\nall 11 of them are in {out}\n")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"][-4:], row["change"]) for row in rows] == [("0000", "lost")] + [
        (f"{k:04d}", "gained") for k in range(2, 12)
    ]
    assert rows[0] == {
        "id": "data-train-0000",
        "db_id": "shop",
        "difficulty": "simple",
        "question": "What about number 000?",
        "gold_sql": "SELECT 7",
        "change": "lost",
        "baseline": {"sql": "SELECT 7", "status": "ok", "error": None},
        "system": {"sql": "SELECT 8", "status": "ok", "error": None},
    }
    assert f"cannot write {tmp_path} (Is a directory): give another file" in refused(*systems, "--out", tmp_path)


def test_of_several_samples_the_voted_one_counts(tmp_path):
    run = make_run(tmp_path, 4)
    samples = [["SELECT 8", "SELECT 7", "SELECT 7"], ["SELECT 7", "SELECT 8", "SELECT 8"], [None, "SELECT 7"], []]
    path = tmp_path / "many.jsonl"
    path.write_text(
        "".join(json.dumps({"question_id": k, "candidates": found}) + "\n" for k, found in enumerate(samples))
    )
    done("score", "--out", run, "--predictions", path)
    said = compared(score(run, "one", "0101"), f"{run}:many")
    assert f"system    {run}:many (vote of 3)\n" in said
    assert table(said)["all"][:3] == ["4", "50.0%", "50.0%"] and table(said)["all"][6:] == ["2", "2"]


def test_two_folders_are_compared_on_the_questions_that_both_answered(tmp_path):
    one, other = make_run(tmp_path / "one", 10), make_run(tmp_path / "other", 10)
    score(one, "base", "1" * 10)
    score(other, "trained", "1" * 8 + "00", "--limit", 9)
    said = compared(one, other)
    assert said.startswith(
        f"baseline  {one} (base)\nsystem    {other} (trained)\n9 questions, by rule set; left out, "
    )
    assert f"as the other has not answered them: 1 of {one}\n" in said
    assert table(said)["all"][:3] == ["9", "100.0%", "88.9%"]


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    run = make_run(tmp_path / "a", 4)
    base = score(run, "base", "1111")
    score(run, "ordered", "1111", "--rule", "ordered")
    assert refused(base, f"{run}:ordered") == (
        f"{base} was scored by rule set and {run}:ordered by ordered: score one of them again with the other's --rule"
    )
    assert refused(run, base) == f"{run} holds 2 systems, base, ordered: give one, as {run}:base"
    assert refused(base, f"{run}:bse") == f"{run} has no scores of bse: it has those of base, ordered"
    assert refused(base, tmp_path) == (
        f"{tmp_path} is no run folder: give FOLDER, or FOLDER:SYSTEM, into which `excot score` has scored"
    )
    unscored = make_run(tmp_path / "b", 4)
    assert refused(base, unscored) == f"{unscored} has no details yet: run `excot score --out {unscored}` first"
    other = score(make_run(tmp_path / "c", 4, gold="SELECT 7.0"), "base", "1111")
    assert refused(base, other) == (
        "4 of 4 common questions have different golds, first data-train-0000: score both on the same questions"
    )
    assert excot("compare", base).code == 2


def test_questions_of_other_benchmarks_have_nothing_in_common(tmp_path):
    one = score(make_run(tmp_path / "one", 2), "a", "11")
    (tmp_path / "two").mkdir()
    make_data(tmp_path / "two" / "shops", 0)
    write_questions(tmp_path / "two" / "shops", [{"question": "?", "db_id": "shop", "gold_sql": "SELECT 7"}])
    two = score(read_data(tmp_path / "two" / "shops", tmp_path / "two" / "run"), "b", "1")
    assert refused(one, two) == (
        f"{one} and {two} have no question in common: theirs are such as data-train-0000 and shops-train-0000"
    )


def test_names_and_folders_may_hold_colons(tmp_path):
    run = make_run(tmp_path / "a:b", 4)
    score(run, "llama3:8b", "1111")
    score(run, "org/model", "0000")
    said = compared(f"{run}:llama3:8b", f"{run}:org/model")
    assert f"baseline  {run}:llama3:8b\nsystem    {run}:org/model\n" in said
    assert "org/model is worse" not in said  # four questions tell nothing
    assert compare_runs(CompareConfig(baseline=f"{run}:llama3:8b", system=f"{run}:org/model")) + "\n" == said


@pytest.mark.parametrize(
    ("lost", "words"), [(5, "at the edge of noise"), (6, "worse than"), (4, "at the edge of noise")]
)
def test_where_test_and_interval_disagree_it_is_called_the_edge(tmp_path, lost, words):
    """Few flips, all of one kind: the interval keeps clear of 0 long before the exact test is sure."""
    run = make_run(tmp_path)
    assert words in compared(score(run, "a", "1" * 100), score(run, "b", "0" * lost + "1" * (100 - lost)))


def test_real_systems_of_spiders_dev_set(shared_data, tmp_path):
    out = str(tmp_path / "dev")
    done("questions", "spider", "--data", shared_data / "spider", "--split", "dev", "--out", out)
    text = (shared_data / "candidates" / "spider_dev.jsonl").read_text("utf-8")
    names = json.loads((shared_data / "candidates" / "spider_dev.systems.json").read_text())
    official = json.loads((shared_data / "candidates" / "spider_dev.expected.json").read_text())["systems"]
    for name in ("C3_SQL", "RESDSQL_NatSQL_3B", "Deepseek-Coder-7B-1000"):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in text.splitlines()]
        answers = ({"question_id": row["question_id"], "sql": row["candidates"][names.index(name)]} for row in rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in answers))
        done("score", "--out", out, "--predictions", path)
    wrong = {name: {*official[name]["test_suite_wrong"]} for name in official}

    def flips(one: str, other: str) -> list[str]:
        return [str(len(wrong[one] - wrong[other])), str(len(wrong[other] - wrong[one]))]

    said = compared(f"{out}:C3_SQL", f"{out}:RESDSQL_NatSQL_3B")
    assert table(said)["all"][3] == "+1.3" and table(said)["all"][6:] == flips("C3_SQL", "RESDSQL_NatSQL_3B")
    assert "+1.3 points cannot be told from noise" in said
    said = compared(f"{out}:C3_SQL", f"{out}:Deepseek-Coder-7B-1000")
    assert table(said)["all"][6:] == flips("C3_SQL", "Deepseek-Coder-7B-1000")
    assert "Deepseek-Coder-7B-1000 is worse than C3_SQL: a loss of 12.3 points is more than noise" in said
