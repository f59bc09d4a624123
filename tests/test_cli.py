"""The command: fast to start, one line for every failure, stopped and started again at will."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from chain import cot, make_data, make_run, replay, rows_of
from command import ROOT, done, excot, python, start
from planted import OPENAI_KEY, PASSWORD
from servers import ChatServer, Reply, Request, chat, failure

import excot as package
from excot import cli
from excot.cli import VERBS
from excot.run import Run

HEAVY = {"torch", "transformers", "datasets", "openai", "pyarrow", "numpy", "pandas", "sqlglot", "yaml", "jinja2"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


# Help and start


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    code, out, err = excot(verb, "--help")
    assert (code, err) == (0, "")
    about = VERBS[verb].options.__doc__
    assert about in " ".join(out.split()) and "--debug" in out
    assert about[:20] in " ".join(excot("--help").out.split())


def test_the_version_is_the_packages():
    assert excot("--version").out == f"excot {package.__version__}\n"


@pytest.mark.parametrize("program", ["import excot", "from excot.cli import main; main(['--help'])"])
def test_import_and_help_take_less_than_half_a_second_and_no_heavy_library(program):
    report = (
        "import sys, resource\ntry:\n    {}\nexcept SystemExit:\n    pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime, *sys.modules, file=sys.stderr)"
    )
    _, err = python(report.format(program)).communicate()
    seconds, *modules = err.split()
    assert float(seconds) < 0.5
    assert HEAVY.isdisjoint(modules)


def test_every_public_name_is_there():
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert package.make_pairs.__module__ == "excot.builders.pairs"
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match="module 'excot' has no attribute 'nonsense'"):
        _ = package.nonsense


# Failures


def test_a_wrong_verb_or_flag_ends_with_2_and_no_verb_too():
    for arguments in (("nonsense",), (), ("sft", "--nonsense"), ("sft", "--limit", "many", "--out", "x")):
        code, out, err = excot(*arguments)
        assert (code, out) == (2, "") and "Traceback" not in err and "excot" in err


def test_a_failure_is_one_line_and_debug_shows_the_traceback(tmp_path):
    quiet, loud = (excot("verify", "--out", tmp_path, *flags) for flags in ((), ("--debug",)))
    assert quiet.code == loud.code == 1
    assert quiet.error() == f"{tmp_path} has no generations yet: run `excot generate --out {tmp_path}` first"
    assert loud.err.startswith("Traceback (most recent call last):\n") and loud.err.endswith(quiet.err)
    usage = excot("verify", "--out", tmp_path, "--timeout", "0", "--debug")
    assert usage.code == 2 and "Traceback" in usage.err


def test_the_summary_alone_is_on_stdout(tmp_path):
    data = make_data(tmp_path / "data", 3)
    (data / "database" / "zoo" / "zoo.sqlite").unlink()
    code, out, err = excot("questions", "folder", "--data", data, "--out", tmp_path / "run")
    assert code == 0
    assert out == (
        f"3 questions on 2 databases, 2 with a database file, in {tmp_path}/run\n"
        f"next: excot generate --out {tmp_path}/run --model MODEL\n"
    )
    assert err == "warning: 1 of 3 questions have no database file: zoo (1)\n"


def test_the_next_command_shown_is_one_that_works(tmp_path):
    out = make_run(tmp_path, 3)
    done("generate", "--out", out, "--backend", "teacher", "--n", 4, "--error-rate", 0.5)
    said = done("verify", "--out", out, "--processes", 1)
    for command in said.rpartition("\nnext: ")[2].split(", or "):
        program, *arguments = shlex.split(command)
        assert program == "excot"
        done(*arguments)


def test_a_dry_run_leaves_no_trace(tmp_path):
    data = make_data(tmp_path / "data", 3)
    assert "would write 3 questions" in done(
        "questions", "folder", "--data", data, "--out", tmp_path / "run", "--dry-run"
    )
    assert not (tmp_path / "run").exists()


def test_a_reader_that_leaves_early_is_no_failure(tmp_path):
    environment = {"HF_HOME": str(tmp_path / "home")}
    process = start("doctor", "spider", "--data", str(tmp_path), environment=environment, bufsize=1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    piped = f"{shlex.quote(sys.executable)} -m excot.cli demo --data-only --out {tmp_path}/demo | head -1"
    result = subprocess.run(
        ["bash", "-c", piped], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, check=True
    )
    assert result.stdout == f"150 questions on 3 databases, 150 with a database file, in {tmp_path}/demo\n"
    assert result.stderr == ""


# Stopped by hand


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 20 s"
        time.sleep(0.01)


def test_ctrl_c_ends_with_130_and_one_line_and_the_same_command_finishes(tmp_path):
    out = make_run(tmp_path, 12)
    command = ["generate", "--out", out, "--model", "tiny", "--n", "1", "--concurrency", "4", "--seed", "3"]
    seen: list[Request] = []

    def slow_from_the_seventh(request: Request) -> Reply:
        seen.append(request)
        return Reply(chat("SELECT 1").body, delay=0 if len(seen) <= 6 else 60)

    with ChatServer(otherwise=slow_from_the_seventh) as server:
        process = start(*command, "--base-url", server.url)
        wait_until(lambda: len(seen) == 10)
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert told == "" and said.strip() == "stopped; what is finished is kept: start the same command again to go on"
    journal = (Path(out) / ".excot" / "generations.jsonl").read_bytes().splitlines()
    assert len(journal) == 1 + 6 and all(map(json.loads, journal))
    assert "generations" not in Run(out).manifest["stages"]
    with ChatServer(otherwise=chat("SELECT 1")) as server:
        done(*command, "--base-url", server.url)
    assert len(server.requests) == 6
    assert all(row["candidates"] for row in rows_of(out, "generations"))


def test_ctrl_c_while_sql_is_executed_stops_the_workers_quietly_as_well(tmp_path):
    out = make_run(tmp_path, 2)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    replay(out, {0: [cot("SELECT 1")], 1: [cot(endless)]})
    process = start("verify", "--out", out, "--processes", "1", "--timeout", "60", start_new_session=True)
    journal = Path(out) / ".excot" / "verified.jsonl"
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 2)  # the second one is being executed
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
    told, said = process.communicate(timeout=20)
    assert process.returncode == 130 and told == ""
    assert said.strip() == "stopped; what is finished is kept: start the same command again to go on"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


# The demo


def numbers(text: str) -> str:
    """What the demo counted, without the seconds of each execution."""
    return re.sub(r"seconds: [\d.e-]+", "", text)


def test_the_data_of_the_demo_is_made_twice_with_the_same_numbers_and_others_for_another_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = [done("demo", "--data-only", "--out", "demo", "--seed", seed) for seed in (0, 0, 1)]
    assert numbers(shown[0]) == numbers(shown[1]) != numbers(shown[2])
    right = [re.search(r"([\d,]+) of [\d,]+ answers are right by rule set", text)[1] for text in shown]
    assert right[0] == right[1] != right[2]
    assert all(
        f'load_dataset("demo", "{stage}", split="train")[0]' in shown[0] for stage in Run("demo").manifest["stages"]
    )
    pair = rows_of("demo", "pairs")[0]
    assert pair["chosen_sql"] != pair["rejected_sql"]
    prompt = json.dumps(pair["prompt"])
    assert "Table " in prompt and pair["chosen"][0]["role"] == "assistant"


@pytest.mark.parametrize("way", [[], ["--data-only"]], ids=["experiment", "data"])
def test_the_demo_does_not_touch_a_run_that_is_not_its_own(tmp_path, way):
    out = make_run(tmp_path, 3)
    before = (Path(out) / "manifest.json").read_bytes()
    assert "holds a run that is not the demo's: give another --out" in excot("demo", *way, "--out", out).error()
    assert (Path(out) / "manifest.json").read_bytes() == before
    assert not (Path(out) / ".excot" / "demo").exists()


# The doctor


def test_the_doctor_finds_what_spiders_data_lacks(shared_data):
    code, out, _ = excot("doctor", "spider", "--data", shared_data / "spider")
    assert code == 0 and out.endswith("all is well\n")
    assert "ok       spider dev: 19 of 20 databases\n" in out
    assert (
        f"missing  spider dev: no file for wta_1: unpack the release's databases into {shared_data}/spider/database\n"
        in out
    )
    assert "train_others.json is missing" in out


def test_the_doctor_points_to_the_folder_in_which_databases_are_looked_for(shared_data):
    code, out, _ = excot("doctor", "bird", "--data", shared_data / "bird")
    assert code == 0 and "missing  bird train: no file for " in out, "dev has one of its databases, train none"
    (line,) = (line for line in out.splitlines() if line.startswith("missing  bird dev:"))
    assert line.endswith(f"unpack the release's databases into {shared_data}/bird/dev_20240627/dev_databases")


def test_the_doctor_calls_it_a_problem_when_no_database_is_there_at_all(tmp_path):
    data = make_data(tmp_path / "data", 3)
    shutil.rmtree(data / "database")
    code, out, _ = excot("doctor", "folder", "--data", data)
    assert code == 1 and f"PROBLEM  no database of folder in {data}: nothing can be executed" in out


def test_the_doctor_finds_damaged_databases_and_malformed_questions(tmp_path):
    data = make_data(tmp_path / "data", 3)
    (data / "database" / "zoo" / "zoo.sqlite").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    (data / "dev.jsonl").write_text("{\n")
    result = excot("doctor", "folder", "--data", data)
    assert result.code == 1 and result.error() == "2 problems found: see the lines above"
    assert len(re.findall(r"^PROBLEM  database .*zoo.sqlite cannot be read", result.out, re.MULTILINE)) == 1
    assert len(re.findall(r"^PROBLEM  .*dev.jsonl, line 1: not valid JSON", result.out, re.MULTILINE)) == 1
    result = excot("doctor", "folder", "--data", tmp_path / "none")
    assert result.code == 1 and f"PROBLEM  no such data folder: {tmp_path}/none" in result.out


def test_the_doctor_asks_the_endpoint_and_says_in_one_line_what_is_wrong_with_it(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with ChatServer() as server:
        code, out, _ = excot("doctor", "--backend", "openai", "--model", "tiny", "--base-url", server.url)
    assert code == 0 and f"ok       {server.url} answers as tiny-2026" in out
    url = f"{server.url}".replace("/v1", "")  # nobody is there any more
    for flags, found in (
        (("--model", "tiny", "--base-url", url), f"PROBLEM  cannot connect to {url}"),
        (("--model", "tiny"), "PROBLEM  OPENAI_API_KEY is not set: export OPENAI_API_KEY="),
        (("--base-url", url), "PROBLEM  which model to ask for is not known: give --model NAME"),
    ):
        result = excot("doctor", "--backend", "openai", *flags)
        assert result.code == 1 and found in result.out and result.error() == "1 problem found: see the lines above"


# Secrets


def test_a_key_is_in_no_output_and_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    out = make_run(tmp_path, 3)
    refusal = failure(401, f"Incorrect API key provided: {OPENAI_KEY}")
    with ChatServer([refusal, refusal], otherwise=lambda request: chat("SELECT 1")) as server:
        plain, named = server.url, server.url.replace("://", f"://me:{PASSWORD}@")
        said = [
            excot("doctor", "--backend", "openai", "--model", "tiny", "--base-url", plain),
            excot("generate", "--out", out, "--model", "tiny", "--concurrency", 1, "--debug", "--base-url", plain),
            excot("generate", "--out", out, "--model", "tiny", "--n", 1, "--base-url", named),
            excot("doctor", "--backend", "openai", "--model", "tiny", "--base-url", named),
        ]
    assert [result.code for result in said] == [1, 1, 0, 0]
    credentials = [request.headers["authorization"] for request in server.requests]
    assert credentials[0] == f"Bearer {OPENAI_KEY}" and credentials[-1].startswith("Basic "), "both were used"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5
    for secret in (OPENAI_KEY, PASSWORD, credentials[-1].removeprefix("Basic ")):
        assert all(secret not in result.out + result.err for result in said)
        assert not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "words",
    [["push", "team", "--public"], ["push", "--public", "team"], ["--public", "push", "team"]],
    ids=" ".join,
)
def test_words_without_a_flag_may_stand_anywhere_among_the_flags(words):
    assert cli._parse(["metric", *words]) == {
        "verb": "metric",
        "debug": False,
        "action": "push",
        "org": "team",
        "public": True,
    }
    assert excot("metric", *words, "more").code == 2
