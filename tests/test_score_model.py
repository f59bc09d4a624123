"""``excot score --model``: a model answers first, under its own prompt, and goes on after a kill."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from chain import ask, cot, make_data, make_run, place, read_data, rows_of
from command import done, excot, start
from servers import ChatServer, Reply, Request, chat, failure

from excot.prompts import Prompt, load_prompt
from excot.run import Run

GOLDS = ("SELECT name FROM item WHERE price > {}", "SELECT count(*) FROM animal WHERE weight > {}")
GOLDS += ("SELECT kind, price FROM item WHERE id <> {} ORDER BY price",)

pytestmark = pytest.mark.usefixtures("clean_environment")


def solve(request: Request) -> Reply:
    """Right, except for every fourth question; of several choices the first is wrong."""
    k = place(request)
    sql = GOLDS[k % 3].format(k) if k % 4 else "SELECT 'wrong'"
    n = request.json.get("n") or 1
    return chat(*([cot("SELECT 'wrong'")] if n > 1 else []), *[cot(sql)] * (n - 1 or 1))


def command(out: str, server: ChatServer, *options: object) -> list[object]:
    return ["score", "--out", out, "--model", "tiny", "--base-url", server.url, "--processes", 1, *options]


def rights(out: str, system: str = "tiny") -> list[float]:
    return [row["right"] for row in rows_of(out, "details") if row["system"] == system]


def test_a_model_answers_each_question_once_and_greedily(tmp_path):
    out = make_run(tmp_path, 6)
    with ChatServer(otherwise=solve) as server:
        found = excot(*command(out, server))
        assert found.code == 0, found.err
        assert {(request.json["temperature"], request.json.get("n", 1)) for request in server.requests} == {(0.0, 1)}
        assert len(server.requests) == 6
        again = excot(*command(out, server))
        assert len(server.requests) == 6 and again.out == "already there: " + found.out
    assert found.out.startswith("tiny on data train: 66.7% of 6 questions right")
    assert "6 answers to 6 of 6 questions by tiny-2026" in found.err
    assert rights(out) == [0, 1, 1, 1, 0, 1]
    (row,) = rows_of(out, "scores")
    assert (row["model"], row["prompt_id"]) == ("tiny-2026", load_prompt("divide_and_conquer").id)
    assert json.loads(row["sampling"])["temperature"] == 0


def test_several_samples_are_voted_on(tmp_path):
    out = make_run(tmp_path, 6)
    with ChatServer(otherwise=solve) as server:
        said = done(*command(out, server, "--n", 3, "--temperature", 0.7))
    (row,) = rows_of(out, "scores")
    assert row["exec_acc"] == pytest.approx(4 * 2 / 3 / 6) and row["exec_acc_vote"] == pytest.approx(4 / 6)
    assert "of 3 samples" in said and "vote" in said


def test_killed_while_answering_it_goes_on_and_asks_no_question_twice(tmp_path):
    data = make_data(tmp_path / "data", 30)
    out, undisturbed = read_data(data, tmp_path / "killed"), read_data(data, tmp_path / "undisturbed")
    with ChatServer(otherwise=lambda request: Reply(solve(request).body, delay=0.05)) as server:
        process = start(*command(out, server, "--concurrency", 2))
        deadline = time.monotonic() + 60
        while len(server.requests) < 12 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert "generations" not in Run(out).manifest["stages"]
        said = done(*command(out, server))
        assert 30 <= len(server.requests) <= 32  # those under way when it was killed are asked again
        assert done(*command(undisturbed, server)).splitlines()[3:9] == said.splitlines()[3:9]
    assert rights(out) == rights(undisturbed) == [float(k % 4 > 0) for k in range(30)]


def test_questions_that_failed_count_as_wrong_until_the_same_command_asks_them_again(tmp_path):
    out = make_run(tmp_path, 6)

    def fail_at_2(request: Request) -> Reply:
        return failure(400, "too long") if place(request) == 2 else solve(request)

    with ChatServer(otherwise=fail_at_2) as server:
        found = excot(*command(out, server))
    assert "warning: 1 questions were not answered: they count as wrong" in found.err
    assert rights(out) == [0, 1, 0, 1, 0, 1]
    with ChatServer(otherwise=solve) as server:
        done(*command(out, server))
        assert [place(request) for request in server.requests] == [2]
    assert rights(out) == [0, 1, 1, 1, 0, 1]


def test_generations_of_another_model_are_not_touched_unless_told_and_scores_of_it_stay(tmp_path):
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=solve) as server:
        ask(out, server, model="teacher", n=2)
        done("score", "--out", out)
        before = Run(out).entry("generations")["fingerprint"]
        line = excot(*command(out, server)).error()
        assert line.startswith(f"{out} already holds generations made with model='teacher' (now 'tiny'), n=2 (now 1)")
        assert Run(out).entry("generations")["fingerprint"] == before
        done(*command(out, server, "--overwrite"))
    assert (rights(out, "teacher"), rights(out)) == ([0, 0.5, 0.5], [0, 1, 1])
    assert "tiny is " not in done("compare", f"{out}:teacher", f"{out}:tiny")


def test_another_rule_needs_no_new_answers(tmp_path):
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=solve) as server:
        done(*command(out, server))
        refused = excot(*command(out, server, "--rule", "ordered")).err
        assert refused.endswith("rule='set' (now 'ordered'): --resume to replace them, or another --name\n")
        said = done(*command(out, server, "--rule", "ordered", "--resume"))
        assert len(server.requests) == 3 and "by rule ordered" in said


def test_nothing_is_asked_where_it_could_not_be_scored(tmp_path):
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=solve) as server:
        assert "no such databases folder" in excot(*command(out, server, "--databases", tmp_path / "none")).error()
        assert "no such model folder" in excot(*command(out, server, "--model-card", tmp_path / "none")).error()
        assert not server.requests
        assert "would ask 3 questions for 1 answers each" in done(*command(out, server, "--dry-run"))
        assert not server.requests and "generations" not in Run(out).manifest["stages"]


# The prompt that a model was trained under


def model_of(folder: Path, prompt: Prompt, *, record: str = "training.json", template: bool = True) -> str:
    """A model's folder as training leaves it, without the model."""
    folder.mkdir()
    (folder / record).write_text(json.dumps({"prompt_id": prompt.id, "model_type": "llama"}))
    if template:
        (folder / "prompt.jinja").write_text(prompt.text)
    return str(folder)


@pytest.mark.parametrize("record", ["training.json", "config.json"])
@pytest.mark.parametrize("name", ["direct", "mine"])
def test_a_trained_model_is_asked_under_its_own_prompt(tmp_path, record, name):
    out = make_run(tmp_path, 2)
    prompt = load_prompt("direct") if name == "direct" else Prompt("mine", "Use {{ schema }} for: {{ question }}")
    model = model_of(tmp_path / "sft", prompt, record=record)
    with ChatServer(otherwise=solve) as server:
        found = excot(*command(out, server, "--model", model))
        asked = server.requests[0].json["messages"]
    assert found.code == 0 and "warning" not in found.err
    row = rows_of(out, "questions")[place(server.requests[0])]
    assert asked == prompt.messages(row["question"], row["schema"])
    assert found.out.startswith("sft on data train: ")
    assert rows_of(out, "scores")[0]["prompt_id"] == (prompt.id if name == "direct" else f"prompt-{prompt.id[-8:]}")


def test_another_prompt_than_the_trained_one_is_a_warning_in_one_line(tmp_path):
    out = make_run(tmp_path, 2)
    trained, used = load_prompt("cot"), load_prompt("direct")
    model = model_of(tmp_path / "sft", trained, template=False)
    warning = f"warning: {model} was trained under prompt {trained.id} and answers under {used.id}: scores suffer"
    with ChatServer(otherwise=solve) as server:
        found = excot(*command(out, server, "--model", model, "--prompt", "direct"))
        assert found.code == 0 and found.err.splitlines()[0] == warning
    assert excot("score", "--out", out).err == warning + "\n"  # and where the answers are there already


def test_a_damaged_record_of_a_model_is_no_reason_to_fail(tmp_path):
    out = make_run(tmp_path, 2)
    (tmp_path / "odd").mkdir()
    for name, text in (("training.json", "{"), ("config.json", "[1]"), ("prompt.jinja", "{{")):
        (tmp_path / "odd" / name).write_text(text)
    with ChatServer(otherwise=solve) as server:
        found = excot(*command(out, server, "--model", tmp_path / "odd"))
    assert found.code == 0 and "warning" not in found.err


def test_a_model_in_a_folder_is_run_in_this_process(tmp_path):
    pytest.importorskip("transformers")
    from excot.demo.model import make_llama

    out = make_run(tmp_path, 2)
    texts = [row["schema"] + row["question"] for row in rows_of(out, "questions")]
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = make_llama(tmp_path / "nano", texts, **narrow)
    options = (
        "--backend",
        "transformers",
        "--model",
        model,
        "--prompt",
        "direct",
        "--max-tokens",
        4,
        "--device",
        "cpu",
    )
    said = done("score", "--out", out, *options)
    assert said.startswith("nano on data train: 0.0% of 2 questions right")
    assert [row["samples"][0]["status"] for row in rows_of(out, "details")] == ["truncated"] * 2
