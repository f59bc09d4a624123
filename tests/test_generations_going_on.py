"""Going on with ``generations``: after a kill, with other options, from another file, or all over again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from chain import answers, ask, finished, make_data, make_run, place, read_data, replay, rows_of
from servers import ChatServer, Reply, Request, chat, failure

from excot.builders.generations import generate, seed_of
from excot.config import GenerateConfig
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


# -- killed and started again


def solve(request: Request) -> Reply:
    """Depends on the request alone: the question, its seed, and the choice's place."""
    seed = request.json["seed"]
    texts = (hashlib.sha256(f"{place(request)} {seed} {k}".encode()).hexdigest() for k in range(request.json["n"]))
    return chat(*texts)


def test_killed_at_any_moment_it_asks_no_finished_question_again_and_ends_with_the_same_rows(tmp_path: Path) -> None:
    data, dice = make_data(tmp_path / "data", 60), random.Random()
    out, undisturbed = read_data(data, tmp_path / "killed"), read_data(data, tmp_path / "undisturbed")
    kills = [*sorted(dice.sample(range(1, 60), 3)), 60]  # requests that the server has seen; the last: all of them

    def slowly(request: Request) -> Reply:
        return Reply(solve(request).body, delay=random.uniform(0.02, 0.12))

    command = [sys.executable, "-m", "excot.cli", "generate", "--out", out, "--model", "tiny", "--n", "2"]
    done: set[int] = set()
    with ChatServer(otherwise=slowly) as server:
        command += ["--base-url", server.url, "--concurrency", "6"]
        for kill in [*kills, None]:
            seen = len(server.requests)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            while kill is not None and process.poll() is None and len(server.requests) < kill:
                time.sleep(0.001)
            if kill is not None:
                time.sleep(dice.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
            output, _ = process.communicate(timeout=60)
            asked = {place(request) for request in server.requests[seen:]}
            assert not asked & done, f"asked again: {asked & done}; killed at {kills}"
            done = finished(out)
        assert process.returncode == 0, output
        assert len(server.requests) <= 60 + 6 * len(kills)
        seeds = defaultdict(set)
        for request in server.requests:
            seeds[place(request)].add(request.json["seed"])
        assert {place: set(found) for place, found in seeds.items()} == {
            k: {seed_of(0, f"data-train-{k:04d}")} for k in range(60)
        }
    assert done == set(range(60))
    with ChatServer(otherwise=solve) as server:
        ask(undisturbed, server, n=2)
    assert rows_of(out, "generations") == rows_of(undisturbed, "generations")
    assert Run(out).entry("generations")["fingerprint"] == Run(undisturbed).entry("generations")["fingerprint"]


def test_a_kill_while_the_dataset_is_written_costs_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    out = make_run(tmp_path, 6)
    with ChatServer() as server:
        for name in ("excot.run._write_shards", "excot.run.os.replace", "excot.run._write_json"):
            with monkeypatch.context() as patch:

                def die(*args: object, **kwargs: object) -> None:
                    raise Killed

                patch.setattr(name, die)
                with pytest.raises(Killed):
                    ask(out, server)
        ask(out, server)
        assert len(server.requests) == 6
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3] * 6


# -- other options


def test_other_options_are_refused_and_resume_keeps_what_is_finished(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    with ChatServer() as server:
        ask(out, server, limit=5, temperature=0.5)
        first = rows_of(out, "generations")
        with pytest.raises(ExcotError, match=r"already holds .* limit=5 \(now None\), temperature=0.5 \(now 1.0\)"):
            ask(out, server)
        assert rows_of(out, "generations") == first
        server.requests.clear()
        ask(out, server, resume=True)
        assert sorted(map(place, server.requests)) == list(range(5, 12))
    rows = rows_of(out, "generations")
    assert rows[:5] == first
    temperatures = [json.loads(row["sampling"])["temperature"] for row in rows]
    assert temperatures == [0.5] * 5 + [1.0] * 7  # each row says how it was sampled itself


def test_a_question_that_changed_is_never_left_with_answers_to_its_earlier_form(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    refuses_two = lambda r: failure(400, "no") if place(r) == 2 else chat("new")  # noqa: E731
    with ChatServer() as server:
        ask(out, server, n=1)
    with ChatServer(otherwise=refuses_two) as server:
        ask(out, server, n=1, prompt="cot", resume=True)
    rows = rows_of(out, "generations")
    assert [answers(row) for row in rows] == [["new"], ["new"], [], ["new"]]
    assert {row["prompt_id"].rpartition("-")[0] for row in rows} == {"cot"}


def test_overwrite_asks_everything_again(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with ChatServer() as server:
        ask(out, server)
        ask(out, server, n=2, overwrite=True)
        assert len(server.requests) == 8
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [2] * 4


def test_an_overwrite_that_was_stopped_goes_on_with_the_same_command(tmp_path: Path) -> None:
    out = make_run(tmp_path, 6)
    with ChatServer(otherwise=solve) as server:
        ask(out, server, n=2)
    first = Run(out).entry("generations")["fingerprint"]

    def fail_after_three(request: Request) -> Reply:
        return solve(request) if len(server.requests) <= 3 else failure(401, "no such key")

    with ChatServer(otherwise=fail_after_three) as server, pytest.raises(ExcotError):
        ask(out, server, n=2, overwrite=True, seed=1, concurrency=1)
    assert Run(out).entry("generations")["fingerprint"] == first  # the old output is there until the new one is whole
    with ChatServer(otherwise=solve) as server:
        ask(out, server, n=2, overwrite=True, seed=1)
    assert len(server.requests) == 3
    with ChatServer(otherwise=solve) as server:
        ask(out, server, n=2, overwrite=True, seed=1)
    assert len(server.requests) == 6  # once finished, another overwrite starts again


def test_a_run_in_which_every_question_fails_is_an_error(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=lambda request: failure(400, "too long")) as server:
        with pytest.raises(ExcotError, match=r"all 3 questions failed, the first, data-train-000\d, with: .*too long"):
            ask(out, server, n=1)
    assert "generations" not in Run(out).manifest["stages"]


def test_it_works_within_a_running_event_loop(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)

    async def cell_of_a_notebook() -> None:
        generate(GenerateConfig(backend="teacher", n=2, out=out))

    asyncio.run(cell_of_a_notebook())
    assert all(len(answers(row)) == 2 for row in rows_of(out, "generations"))


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in Path(out).rglob("*")}
    with ChatServer() as server:
        text = ask(out, server, dry_run=True, few_shots=1)
    assert server.requests == []
    assert {path: path.stat().st_mtime_ns for path in Path(out).rglob("*")} == before
    assert text.startswith("would ask 12 questions for 3 answers each with prompt divide_and_conquer-")
    assert "What about number 000?" in text


def test_another_file_to_replay_is_never_taken_for_the_one_before(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {0: ["SELECT 1"]})
    with pytest.raises(ExcotError, match="from="):
        replay(out, {0: ["SELECT 2"], 1: ["SELECT 3"]})
    replay(out, {0: ["SELECT 2"], 1: ["SELECT 3"]}, resume=True)
    assert [answers(row) for row in rows_of(out, "generations")] == [["SELECT 1"], ["SELECT 3"], []]
    replay(out, {0: ["SELECT 2"]}, overwrite=True)
    assert [answers(row) for row in rows_of(out, "generations")] == [["SELECT 2"], [], []]


def test_a_model_answers_what_a_replayed_file_left_out(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {1: ["SELECT 1"]})
    with ChatServer() as server:
        ask(out, server, n=1, resume=True)
    assert sorted(map(place, server.requests)) == [0, 2]
    rows = rows_of(out, "generations")
    assert [row["model"] for row in rows] == ["tiny-2026", "by-hand", "tiny-2026"]
    assert json.loads(rows[1]["sampling"]) == {"n": None}


def test_the_teacher_answers_anew_where_a_gold_was_mended(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", 3)
    out = read_data(data, tmp_path / "run")
    config = GenerateConfig(out=out, backend="teacher", n=1, error_rate=0.0)
    generate(config)
    text = (data / "train.jsonl").read_text()
    (data / "train.jsonl").write_text(text.replace("weight > 1", "weight > 7"))
    read_data(data, Path(out))
    generate(config)
    found = ["weight > 7" in answers(row)[0] and row["gold_sql"].endswith("7") for row in rows_of(out, "generations")]
    assert found == [False, True, False]
