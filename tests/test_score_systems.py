"""What is kept of scored systems: side by side in a run folder, and as evaluation results in a model's card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import cot, make_run, replay, rows_of, write_questions
from command import done, excot
from huggingface_hub import ModelCard
from scored import GOLDS, SQL, details, file_of, jsonl, lines, refused, rights, score
from stages import load

from excot.config import ScoreConfig
from excot.metrics.score import score_run
from excot.run import Run


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A run folder with four questions of a benchmark of one's own."""
    return make_run(tmp_path, 4)


# The run folder's own generations


def test_the_generations_of_the_run_are_scored_as_they_were_finished(run):
    answers = {
        0: [cot(GOLDS[0]), (cot(GOLDS[0]) + "\nBut wai", "length"), (GOLDS[0], "length"), (None, "content_filter")],
        1: [cot("SELECT 3")] * 4,
        2: [cot(GOLDS[2])] * 2 + [cot("SELECT 1")] * 2,
    }
    replay(run, answers)
    said = score(run)
    assert said.startswith("by-hand on data train: 50.0% of 12 answers to 4 questions right")
    assert "answers from the generations of by-hand" in said
    assert [sample["status"] for sample in details(run)[0]["samples"]] == ["ok", "ok", "truncated", "no_sql"]
    assert rights(run) == [0.5, 1, 0.5, 0]
    (row,) = rows_of(run, "scores")
    assert row["model"] == "by-hand" and row["prompt_id"].startswith("divide_and_conquer-")
    assert "generations" in Run(run).manifest["stages"] and "verified" not in Run(run).manifest["stages"]


def test_one_answer_of_each_is_no_sampling(run):
    replay(run, {k: [cot(gold)] for k, gold in enumerate(GOLDS[:3])})
    assert "pass@" not in score(run)
    assert rights(run) == [1, 1, 1, 0]


def test_new_generations_under_the_same_options_are_scored_anew_and_of_others_refused(run, tmp_path):
    replay(run, {0: [cot(GOLDS[0])]})
    score(run, "--name", "mine")
    replay(run, {0: [cot("SELECT 1")]}, overwrite=True)
    assert "already holds scores of mine made with from=" in refused(run, "--name", "mine")
    score(run, "--name", "mine", "--overwrite")
    assert rights(run) == [0, 0, 0, 0]


def test_the_teacher_has_seen_the_golds_and_that_is_said(run):
    done("generate", "--out", run, "--backend", "teacher", "--n", 2)
    found = excot("score", "--out", run, "--name", "teacher")
    assert "warning: These answers were written by the offline teacher, which has seen the gold SQL" in found.err


# Several systems in one folder


def test_systems_stand_beside_each_other_and_one_is_replaced_alone(run, tmp_path):
    for name, answers in (("a", SQL), ("b", GOLDS), ("c", [None] * 4)):
        said = score(run, "--predictions", file_of(run, jsonl(answers), f"{name}.jsonl"))
    assert f"details and scores of 3 systems are in {run}\nnext: excot compare {run}:b {run}:c" in said
    assert {name: rights(run, name) for name in "abc"} == {"a": [1, 1, 0, 0], "b": [1] * 4, "c": [0] * 4}
    assert [(row["system"], row["exec_acc"]) for row in rows_of(run, "scores")] == [("a", 0.5), ("b", 1), ("c", 0)]
    file_of(run, jsonl(GOLDS), "a.jsonl")
    line = refused(run, "--predictions", tmp_path / "a.jsonl")
    assert line.startswith(f"{run} already holds scores of a made with predictions=")
    assert line.endswith("--overwrite to replace them, or another --name")
    assert "rule='set' (now 'ordered')" in refused(run, "--predictions", tmp_path / "b.jsonl", "--rule", "ordered")
    score(run, "--predictions", tmp_path / "a.jsonl", "--overwrite")
    assert {row["system"]: row["exec_acc"] for row in rows_of(run, "scores")} == {"a": 1, "b": 1, "c": 0}
    assert [len(details(run, name)) for name in "abc"] == [4, 4, 4]
    assert len(list((Path(run) / "details").iterdir())) == len(list((Path(run) / "scores").iterdir())) == 1


def test_load_dataset_opens_details_and_scores_of_systems_with_different_columns(run, tmp_path):
    score(run, "--predictions", file_of(run, lines(SQL), "one.sql"))
    text = "".join(json.dumps({"question_id": k, "candidates": [sql, sql]}) + "\n" for k, sql in enumerate(SQL))
    score(run, "--predictions", file_of(run, text, "two.jsonl"), "--extras", "soft_f1")
    rows = load(Path(run), "details")
    assert rows == rows_of(run, "details") and len(rows) == 8
    assert [row["vote"] for row in rows] == [None] * 4 + [0] * 4
    one, two = load(Path(run), "scores")
    assert (one["system"], one["pass_at_2"], two["system"], two["pass_at_2"]) == ("one", None, "two", 0.5)
    assert [type(two[name]) for name in ("questions", "exec_acc", "rule", "samples")] == [int, float, str, int]
    assert load(Path(run)) == rows  # without a config's name, the most finished dataset
    card = (Path(run) / "README.md").read_text()
    assert "| one | 4 | 50.0% | 15.0 to 85.0 | set |" in card and "| two | 4 | 50.0% |" in card
    # A summary that is read back is the one that was written: columns of other systems do not leak into it.
    before = rows_of(run, "scores")
    shutil.rmtree(Path(run) / "scores")
    manifest = json.loads((Path(run) / "manifest.json").read_text())
    del manifest["stages"]["scores"]
    (Path(run) / "manifest.json").write_text(json.dumps(manifest))
    score(run, "--predictions", tmp_path / "one.sql")
    assert rows_of(run, "scores") == before


def test_scores_of_questions_that_were_made_anew_are_dropped(run, tmp_path):
    score(run, "--predictions", file_of(run, lines(SQL), "old.sql"))
    write_questions(tmp_path / "data", [{"question": "Which?", "db_id": "shop", "gold_sql": GOLDS[0]}])
    done("questions", "folder", "--data", tmp_path / "data", "--out", run, "--overwrite")
    assert "was made from an earlier questions" in excot("compare", run, run).error()
    found = excot("score", "--out", run, "--predictions", file_of(run, lines(SQL[:1]), "new.sql"))
    assert found.code == 0 and found.err == "warning: the questions have changed: the scores of old are dropped\n"
    assert {row["system"] for row in details(run)} == {row["system"] for row in rows_of(run, "scores")} == {"new"}


def test_a_kill_between_details_and_scores_is_mended_by_the_same_command(run, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    path = file_of(run, lines(SQL))
    with monkeypatch.context() as patch:
        patch.setattr("excot.metrics.systems._schema_of", die)
        with pytest.raises(Killed):
            score_run(ScoreConfig(out=run, predictions=str(path), processes=1))
    assert "scores" not in Run(run).manifest["stages"] and rights(run) == [1, 1, 0, 0]
    assert score(run, "--predictions", path).startswith("already there: mine on data train: 50.0%")
    assert rows_of(run, "scores")[0]["exec_acc"] == 0.5
    assert (Path(run) / "model-index.yaml").is_file()


def test_another_process_in_the_folder_is_no_reason_to_lose_scores(run):
    path = file_of(run, lines(SQL))
    with Run(run).begin("details", {}, ("questions",), on_existing="overwrite"):
        assert "another excot process is at work" in refused(run, "--predictions", path)
    score(run, "--predictions", path)


def test_a_dry_run_says_what_would_be_executed_and_leaves_no_trace(run):
    path = file_of(run, lines(SQL))
    said = score(run, "--predictions", path, "--dry-run")
    assert said == f"would execute 4 answers to 4 questions from {path} (one SQL a line)\n"
    assert "details" not in Run(run).manifest["stages"] and not (Path(run) / "model-index.yaml").exists()


# The Hub's evaluation results


def test_the_model_index_names_benchmark_rule_and_values(run):
    score(run, "--predictions", file_of(run, lines(SQL), "one.sql"))
    score(run, "--predictions", file_of(run, lines(GOLDS), "two.sql"))
    text = (Path(run) / "model-index.yaml").read_text()
    card = ModelCard(f"---\n{text}---\n")
    first = card.data.eval_results[0]
    assert (first.task_name, first.dataset_name, first.dataset_split) == ("Text-to-SQL", "data train", "train")
    assert (first.metric_type, first.metric_name, first.metric_value) == ("exec_acc", "execution accuracy (set)", 50.0)
    assert first.dataset_args == {"questions": 4}
    assert [entry["name"] for entry in yaml.safe_load(text)["model-index"]] == ["one", "two"]


CARDS = {
    "none": None,
    "words": "# My model\n\nIt is good.\n",
    "front": "---\nlicense: mit\nzeta: [1, 2]\n---\n\n# My model\n\nIt is good.\n---\nA rule above.\n",
    "windows": "---\r\nlicense: mit\r\n---\r\n# My model\r\n",
    "empty": "---\n---\n# My model\n",
}


@pytest.mark.parametrize("card", CARDS)
def test_results_go_into_a_model_card_and_the_users_words_stay(run, tmp_path, capfd, card):
    folder = tmp_path / "my-model"
    folder.mkdir()
    path, text = folder / "README.md", CARDS[card]
    if text is not None:
        path.write_bytes(text.encode())
    for answers in (SQL, GOLDS):  # scored again, the model has one result still
        score(run, "--predictions", file_of(run, lines(answers)), "--model-card", folder, "--overwrite")
    found = ModelCard.load(path)
    assert [result.metric_value for result in found.data.eval_results] == [100.0] * 4
    assert found.data.model_name == "my-model"
    written = path.read_bytes().decode()
    body = (text or "# my-model\n").removeprefix("---\n---\n").rpartition("license: mit")[2]
    assert written.endswith(body if card != "front" else body.partition("---\n")[2])
    assert ("license: mit" in written) == ("license" in (text or ""))
    assert card != "windows" or "\n" not in written.replace("\r\n", "")
    assert capfd.readouterr().err == ""


def test_results_of_other_benchmarks_in_a_card_stay(run, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    entry = {
        "task": {"type": "text-generation"},
        "dataset": {"type": "gsm8k", "name": "GSM8K"},
        "metrics": [{"type": "acc", "value": 7}],
    }
    front = {"model-index": [{"name": "Their name", "results": [entry]}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\nwords\n")
    score(run, "--predictions", file_of(run, lines(SQL)), "--model-card", folder)
    (index,) = ModelCard.load(folder / "README.md").data.to_dict()["model-index"]
    assert index["name"] == "Their name" and index["results"][0] == entry and len(index["results"]) == 2


def test_a_card_that_cannot_be_read_is_refused_before_anything_is_executed(run, tmp_path):
    path = file_of(run, lines(SQL))
    assert "no such model folder" in refused(run, "--predictions", path, "--model-card", tmp_path / "none")
    folder = tmp_path / "model"
    folder.mkdir()
    for text in ("---\na: [\n---\n", "---\nmodel-index: 3\n---\n", "---\nwords\n---\n"):
        (folder / "README.md").write_text(text)
        assert "the front matter of" in refused(run, "--predictions", path, "--model-card", folder)
        assert (folder / "README.md").read_text() == text
    assert "details" not in Run(run).manifest["stages"]
