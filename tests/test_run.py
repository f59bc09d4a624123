"""The run folder: what a stage leaves behind, and what it refuses."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from chain import cot, judge, make_data, read_data, replay, rows_of
from command import done, excot
from huggingface_hub import DatasetCard
from servers import ChatServer
from stages import begin, contents, load, row, write

from excot import run as run_module
from excot.errors import ExcotError
from excot.execution import file_hash
from excot.run import Run


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a test went out to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# What a stage leaves behind


@pytest.mark.parametrize("count", [1, 7, 8, 100])
def test_load_dataset_gives_the_written_rows_in_order_from_any_number_of_shards(tmp_path, offline, monkeypatch, count):
    monkeypatch.setattr(run_module, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(run_module, "_SHARD_BYTES", 1)
    rows, folder = [row(number) for number in range(count)], tmp_path / "run"
    write(folder, iter(rows))
    assert load(folder, "questions") == list(Run(folder).read("questions")) == rows
    assert len(list((folder / "questions").iterdir())) == max(1, -(-count // 7))
    assert Run(folder).entry("questions")["rows"] == count
    assert [set(only) for only in Run(folder).read("questions", ["id"])] == [{"id"}] * count


def test_load_dataset_without_a_config_name_gives_the_most_finished_dataset(tmp_path, offline):
    write(tmp_path / "run", [row(1)])
    assert load(tmp_path / "run") == [row(1)]
    write(tmp_path / "run", [row(2)], "sft")
    assert load(tmp_path / "run") == [row(2)]


def test_load_dataset_gives_the_new_rows_after_a_stage_was_made_anew(tmp_path, offline):
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


def test_a_card_that_could_not_be_read_is_brought_up_to_date_once_it_is_mended(tmp_path, offline):
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
