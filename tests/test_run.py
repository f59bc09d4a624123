"""The run folder: what a stage leaves behind, what it refuses, and that nothing ends it half-way."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chain import cot, judge, make_data, read_data, replay, rows_of
from command import done, excot, python
from datasets import load_dataset
from huggingface_hub import DatasetCard
from servers import ChatServer

from excot import run as run_module
from excot.errors import ExcotError
from excot.execution import file_hash
from excot.run import Run, Stage

SCHEMA = pa.schema([("id", pa.string()), ("said", pa.list_(pa.struct([("text", pa.string()), ("n", pa.int64())])))])


def row(number: int) -> dict[str, Any]:
    return {"id": f"q-{number:04d}", "said": [{"text": f"answer {number} ü", "n": None}] * (number % 3)}


def begin(folder: Path, stage: str = "questions", on_existing: Any = "refuse", **arguments: Any) -> Stage:
    inputs = () if stage == "questions" else ("questions",)
    return Run(folder).begin(stage, arguments, inputs, on_existing=on_existing)


def write(folder: Path, rows: Iterable[dict[str, Any]], stage: str = "questions", **options: Any) -> None:
    with begin(folder, stage, **options) as under_way:
        assert not under_way.finished
        under_way.write(rows, SCHEMA, "train")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folder that would be pushed."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".excot" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a test went out to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def load(tmp_path: Path, offline: None):
    """``load_dataset`` with a cache of this test's own."""

    def load(folder: Path, *config: str, split: str = "train") -> list[dict[str, Any]]:
        return list(load_dataset(str(folder), *config, split=split, cache_dir=str(tmp_path / "cache")))

    return load


# What a stage leaves behind


@pytest.mark.parametrize("count", [1, 7, 8, 100])
def test_load_dataset_gives_the_written_rows_in_order_from_any_number_of_shards(tmp_path, load, monkeypatch, count):
    monkeypatch.setattr(run_module, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(run_module, "_SHARD_BYTES", 1)
    rows, folder = [row(number) for number in range(count)], tmp_path / "run"
    write(folder, iter(rows))
    assert load(folder, "questions") == list(Run(folder).read("questions")) == rows
    assert len(list((folder / "questions").iterdir())) == max(1, -(-count // 7))
    assert Run(folder).entry("questions")["rows"] == count
    assert [set(only) for only in Run(folder).read("questions", ["id"])] == [{"id"}] * count


def test_load_dataset_without_a_config_name_gives_the_most_finished_dataset(tmp_path, load):
    write(tmp_path / "run", [row(1)])
    assert load(tmp_path / "run") == [row(1)]
    write(tmp_path / "run", [row(2)], "sft")
    assert load(tmp_path / "run") == [row(2)]


def test_load_dataset_gives_the_new_rows_after_a_stage_was_made_anew(tmp_path, load):
    """The cache of `datasets` knows a local folder by the file names in its card only."""
    folder = tmp_path / "run"
    for number in (1, 2, 1):
        write(folder, [row(number)], on_existing="overwrite", number=number)
        assert load(folder, "questions") == [row(number)]
        assert len(list((folder / "questions").iterdir())) == 1


def test_equal_rows_make_equal_files(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, (row(number) for number in range(300)))
    one, two = (
        {name: data for name, data in contents(tmp_path / folder).items() if name.endswith(".parquet")}
        for folder in ("one", "two")
    )
    assert one == two and len(one) == 1


# The card


def test_the_card_is_one_that_the_hub_library_reads(tmp_path, monkeypatch):
    folder = tmp_path / "my-run"
    write(folder, [row(1)])
    write(folder, [row(1)], "sft")
    card = DatasetCard.load(folder / "README.md")
    configs = {config["config_name"]: config for config in card.data.configs}
    assert (
        list(configs) == ["questions", "sft"] and configs["sft"]["default"] and "default" not in configs["questions"]
    )
    assert {path.name for path in folder.glob(configs["sft"]["data_files"][0]["path"])} == {
        path.name for path in (folder / "sft").iterdir()
    }
    assert 'load_dataset("my-run", "sft", split="train")' in card.text
    monkeypatch.chdir(folder)  # a folder given as "." has a name all the same
    write(Path("."), [row(2)], on_existing="overwrite")
    assert 'load_dataset("my-run", "questions", split="train")' in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: mit\nlanguage: [de]\n---\n# Mine\n\nBEFORE\n",
        "---\nlicense: mit\nlanguage: [de]\n---",
        "---\n---\n# Mine\n\nBEFORE\n",
        "# Mine\n\nBEFORE\n",
        "BEFORE\n---\nnot front matter\n---\n",
        "---\nBEFORE\n---\nno mapping\n",
        "",
    ],
)
def test_a_users_words_and_front_matter_survive(tmp_path, card):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "README.md").write_text(card)
    write(folder, [row(1)])
    with open(folder / "README.md", "a") as file:
        file.write("\nAFTER\n")
    write(folder, [row(2)], on_existing="overwrite")
    write(folder, [row(3)], "sft")
    text = (folder / "README.md").read_text()
    read = DatasetCard(text)
    assert [config["config_name"] for config in read.data.configs] == ["questions", "sft"]
    assert text.count("excot:begin") == text.count("excot:end") == text.count("# run") == text.count("AFTER") == 1
    assert text.count("BEFORE") == card.count("BEFORE")
    assert text.index("excot:end") < text.index("AFTER")
    if "license" in card:
        assert (read.data.license, read.data.language) == ("mit", ["de"])


def test_words_below_a_marker_without_its_end_survive(tmp_path):
    folder = tmp_path / "run"
    write(folder, [row(1)])
    card = (folder / "README.md").read_text().replace("<!-- excot:end -->", "MINE")
    (folder / "README.md").write_text(card)
    for number in (2, 3):
        write(folder, [row(number)], on_existing="overwrite")
    assert "MINE" in (folder / "README.md").read_text()


def test_a_card_that_could_not_be_read_is_brought_up_to_date_once_it_is_mended(tmp_path, load):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(ExcotError, match=r"front matter of .*README.md is not YAML .*mend it"):
        write(folder, [row(1)])
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    with begin(folder) as stage:
        assert stage.finished
    assert load(folder, "questions") == [row(1)]


# What a stage refuses


def test_the_same_arguments_leave_a_finished_stage_as_it_is(tmp_path):
    write(tmp_path / "run", [row(1)], n=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")}
    with begin(tmp_path / "run", n=1) as stage:
        assert stage.finished
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")} == before


def test_other_arguments_are_refused_with_the_old_and_the_new_value(tmp_path):
    data = make_data(tmp_path / "data")
    out = read_data(data, tmp_path / "run", limit=3)
    before = contents(tmp_path / "run")
    error = excot("questions", "folder", "--data", data, "--out", out, "--limit", 4).error()
    assert "already holds questions made with limit=3 (now 4)" in error
    assert "--overwrite" in error and "--resume" not in error
    assert contents(tmp_path / "run") == before
    done("questions", "folder", "--data", data, "--out", out, "--limit", 4, "--overwrite")
    assert len(rows_of(out, "questions")) == 4
    done("generate", "--out", out, "--backend", "teacher", "--n", 2)
    error = excot("generate", "--out", out, "--backend", "teacher", "--n", 3, "--seed", 5).error()
    assert "n=2 (now 3), seed=0 (now 5)" in error and "--resume" in error


@pytest.fixture
def chain(tmp_path: Path) -> str:
    """A run folder with every stage up to sft."""
    out = read_data(make_data(tmp_path / "data", 3), tmp_path / "run")
    replay(out, {place: [cot(gold["gold_sql"])] for place, gold in enumerate(rows_of(out, "questions"))})
    judge(out)
    done("sft", "--out", out)
    return out


def test_what_was_made_from_earlier_questions_is_refused_however_far_down_the_chain(chain, tmp_path):
    done("questions", "folder", "--data", tmp_path / "data", "--out", chain, "--limit", 2, "--overwrite")
    for verb in ("verify", "sft", "pairs"):
        result = excot(verb, "--out", chain)
        assert result.code == 1
        assert "generations" in result.error() and "was made from an earlier questions" in result.error()
        assert f"run `excot generate --out {chain}` anew" in result.error()
    done("generate", "--out", chain, "--backend", "replay", "--from", tmp_path / "answers.jsonl")
    assert f"run `excot verify --out {chain}` anew" in excot("sft", "--out", chain).error()
    done("verify", "--out", chain, "--processes", 1)
    done("sft", "--out", chain)
    assert len(rows_of(chain, "sft")) == 2


def test_a_stage_before_its_input_names_the_verb_to_run_first(tmp_path):
    out = tmp_path / "run"
    for verb, before in (("generate", "questions"), ("verify", "generate"), ("sft", "verify"), ("pairs", "verify")):
        options = ("--backend", "teacher") if verb == "generate" else ()
        assert f"run `excot {before} --out {out}` first" in excot(verb, "--out", out, *options).error()
    assert not out.exists()


def test_a_dataset_changed_by_hand_is_refused(chain):
    (shard,) = (Path(chain) / "verified").iterdir()
    shard.write_bytes(shard.read_bytes() + b" ")
    result = excot("pairs", "--out", chain)
    assert result.code == 1
    assert f"{shard} is not the file that the manifest describes" in result.error()
    assert f"remove it and run `excot verify --out {chain}` again" in result.error()


def test_a_dataset_that_was_removed_is_made_again_from_the_journal_without_asking(tmp_path):
    out = read_data(make_data(tmp_path / "data", 4), tmp_path / "run")
    with ChatServer() as server:
        command = ("generate", "--out", out, "--model", "tiny", "--n", 2, "--base-url", server.url)
        done(*command)
        before, asked = contents(Path(out)), len(server.requests)
        (shard,) = (Path(out) / "generations").iterdir()
        shard.unlink()
        assert f"{shard} is missing" in excot("verify", "--out", out).error()
        done(*command)
        assert len(server.requests) == asked
    assert contents(Path(out)).keys() == before.keys()
    assert shard.read_bytes() == before[f"generations/{shard.name}"]


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "3", "{}", '{"stages": []}', "\xff", ""])
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "run" / "manifest.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    for command in (("verify",), ("questions", "folder", "--data", make_data(tmp_path / "data"))):
        result = excot(*command, "--out", path.parent)
        assert result.code == 1 and str(path) in result.error() and "restore the file" in result.error()
    assert path.read_bytes() == text.encode("latin-1")


# Nothing ends it half-way

HOLD_THE_LOCK = """
import sys
from excot.run import Run
with Run(sys.argv[1]).begin("questions", {}):
    print("inside", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    data, out = make_data(tmp_path / "data"), tmp_path / "run"
    with python(HOLD_THE_LOCK, out, stdin=-1) as holder:
        assert holder.stdout.readline() == "inside\n"
        result = excot("questions", "folder", "--data", data, "--out", out)
        assert result.code == 1 and f"another excot process is at work in {out}" in result.error()
        assert contents(out) == {}
        holder.kill()
    done("questions", "folder", "--data", data, "--out", out)  # the lock ends with its process


def test_two_stages_do_not_work_in_one_folder_within_a_process(tmp_path):
    with begin(tmp_path / "run"):
        with pytest.raises(ExcotError, match="another excot process is at work"):
            with begin(tmp_path / "run"):
                raise AssertionError("entered twice")
    with begin(tmp_path / "run"):
        pass


def failing(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield row(number)
    raise RuntimeError("no more rows")


def test_rows_that_fail_half_way_leave_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="no more rows"):
        write(tmp_path / "run", failing(1000))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".excot"]
    assert [path.name for path in (tmp_path / "run" / ".excot").iterdir()] == ["lock"]


def test_rows_that_fail_half_way_leave_what_was_there(tmp_path, load):
    write(tmp_path / "run", [row(1)])
    before = contents(tmp_path / "run")
    with pytest.raises(RuntimeError, match="no more rows"):
        write(tmp_path / "run", failing(1000), on_existing="overwrite")
    assert contents(tmp_path / "run") == before
    assert load(tmp_path / "run") == [row(1)]


SLOW_ROWS = """
import sys, time
import pyarrow as pa
from excot.run import Run

def rows():
    for number in range(10_000):
        if number == 500:  # two batches are on the disk by now
            print("writing", flush=True)
            time.sleep(60)
        yield {"id": f"new {number}"}

with Run(sys.argv[1]).begin("questions", {"new": True}, on_existing="overwrite") as stage:
    stage.write(rows(), pa.schema([("id", pa.string())]), "train")
"""


def test_killed_while_rows_are_written_the_old_dataset_is_whole(tmp_path, load):
    write(tmp_path / "run", [row(1)])
    before = contents(tmp_path / "run")
    with python(SLOW_ROWS, tmp_path / "run") as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert contents(tmp_path / "run") == before
    assert load(tmp_path / "run") == [row(1)]
    write(tmp_path / "run", [row(2)], on_existing="overwrite")
    assert load(tmp_path / "run") == [row(2)]


# For every operation on a file that a write makes, a process that is killed just before it.
KILLED_EVERYWHERE = """
import json, os, shutil, signal, sys
from itertools import count
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet
from excot.run import Run

first, folder = sys.argv[1:]
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}

def write(moment):
    seen = 0
    def watch(event, arguments):
        nonlocal seen
        if event in EVENTS and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    with Run(folder).begin("questions", {}, on_existing="overwrite") as stage:
        sys.addaudithook(watch)
        stage.write([{"id": "new"}], pa.schema([("id", pa.string())]), "train")

for moment in count(1):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(first, folder)
    child = os.fork()
    if not child:
        try:
            write(moment)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    shutil.copytree(folder, f"{folder}-{moment}")
    print(os.waitstatus_to_exitcode(status), flush=True)
    if not os.WIFSIGNALED(status):
        break
"""


def test_killed_before_any_file_operation_either_the_old_or_the_new_dataset_is_whole(tmp_path):
    write(tmp_path / "first", [row(1)])
    old = Run(tmp_path / "first").entry("questions")["fingerprint"]
    out, err = python(KILLED_EVERYWHERE, tmp_path / "first", tmp_path / "run").communicate()
    ends = list(map(int, out.split()))
    assert ends[:-1] == [-signal.SIGKILL] * (len(ends) - 1) and ends[-1] == 0 and len(ends) > 8, err
    seen = []
    for moment in range(1, len(ends) + 1):
        folder = tmp_path / f"run-{moment}"
        seen.append(Run(folder).entry("questions")["fingerprint"] == old)  # which checks every file of the manifest
        (config,) = DatasetCard.load(folder / "README.md").data.configs
        (shard,) = folder.glob(config["data_files"][0]["path"])  # what `load_dataset` would open, at every moment
        assert file_hash(shard)
        write(folder, [row(3)], on_existing="overwrite")  # and the next start leaves nothing over
        assert len(list((folder / "questions").iterdir())) == 1
        assert sorted(path.name for path in (folder / ".excot").iterdir()) == ["lock"]
    assert seen == sorted(seen, reverse=True) and seen[0] and not seen[-1]


def test_the_manifest_says_how_a_stage_was_made(tmp_path):
    data = make_data(tmp_path / "data", 3)
    out = read_data(data, tmp_path / "run")
    entry = json.loads((Path(out) / "manifest.json").read_text())["stages"]["questions"]
    assert entry["arguments"] == {"benchmark": "folder", "split": "train", "descriptions": False, "limit": None}
    assert (entry["rows"], entry["split"]) == (3, "train")
    shop = data / "database" / "shop" / "shop.sqlite"
    assert entry["databases"]["shop"] == {"shop.sqlite": file_hash(shop)}
    assert str(tmp_path) not in (Path(out) / "manifest.json").read_text(), "the manifest is pushed"
    assert os.path.samefile(Run(out).local["databases"], data / "database")
