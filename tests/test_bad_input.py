"""Bad input: one line that says what, where and what to do, exit code 1 (2 for usage), and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chain import SHOP, make_data, make_database, read_data
from command import done, excot, python

from excot.run import Run

Break = Callable[[Path], object]


def refused(data: Path, out: Path, *flags: str, benchmark: str = "folder", code: int = 1) -> str:
    """The error of the stage ``questions``, after seeing that it left no dataset and no manifest."""
    result = excot("questions", benchmark, "--data", data, "--out", out, *flags)
    assert (result.code, result.out) == (code, ""), result
    left = [path for path in out.rglob("*") if path.is_file() and path.name != "lock"] if out.is_dir() else []
    assert left == [] and not (out / "questions").exists()
    return result.error()


def replaced(name: str, text: str | bytes) -> Break:
    def change(data: Path) -> None:
        (data / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return change


def question(**fields: object) -> str:
    common = {"db_id": "shop", "question": "What?", "gold_sql": "SELECT 1"}
    return json.dumps({name: value for name, value in {**common, **fields}.items() if value != "left out"}) + "\n"


GOOD = question()
SHOP_FILE = "database/shop/shop.sqlite"


# Questions


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        (GOOD + '{"db_id": "shop",\n', "train.jsonl, line 2: not valid JSON", "mend the line"),
        (GOOD + "\n" + "[1, 2]\n", "train.jsonl, line 3: a list stands where a question should", "write one object"),
        (
            GOOD + question(gold_sql="left out"),
            "train.jsonl, line 2: no 'gold_sql'",
            "every question needs db_id, question",
        ),
        (question(question="  "), "train.jsonl, line 1: no 'question'", "every question needs"),
        (question(db_id=None), "train.jsonl, line 1: no 'db_id'", "every question needs"),
        (question(gold_sql=["SELECT 1"]), "line 1: 'gold_sql' is ['SELECT 1']", "it must be text"),
        (question(evidence=7), "line 1: 'evidence' is 7", "it must be text"),
        (question(question="\ud83d"), "line 1: 'question' holds half a character", "write the whole character"),
        (b"\xff\xfe" + GOOD.encode("utf-16-le"), "train.jsonl is not UTF-8 (byte 0)", "convert it to UTF-8"),
        ("", "no questions in", "the file of this split is empty"),
    ],
)
def test_malformed_questions_are_refused_with_file_and_line(tmp_path, text, found, remedy):
    data = make_data(tmp_path / "data", 1)
    replaced("train.jsonl", text)(data)
    error = refused(data, tmp_path / "run")
    assert found in error and remedy in error and str(data) in error


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        (
            "train.csv",
            "db_id,question,gold_sql\nshop,what?,SELECT 1\nshop,what?\n",
            "train.csv, line 3: no 'gold_sql'",
        ),
        ("train.csv", "db_id;question;gold_sql\nshop;what?;SELECT 1\n", "train.csv, line 2: no 'db_id'"),
        (
            "train.csv",
            f"db_id,question,gold_sql\nshop,{'x' * 200_000},SELECT 1",
            "train.csv, line 2: not valid CSV (field",
        ),
        ("train.parquet", "PAR1 no PAR1", "train.parquet ("),
        ("train.parquet", "", "train.parquet ("),
        ("tables.json", "[{", "tables.json, line 1, column 3: not valid JSON"),
        ("tables.json", "[{}]", "tables.json is no tables.json (KeyError('db_id'))"),
        ("tables.json", "[3]", "tables.json is no tables.json ("),
        ("tables.json", "{}", "tables.json holds a dict, not a list"),
    ],
)
def test_other_malformed_files_are_refused_by_name(tmp_path, name, text, found):
    data = make_data(tmp_path / "data", 1)
    if name.startswith("train"):
        (data / "train.jsonl").unlink()
    replaced(name, text)(data)
    assert found in refused(data, tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"db_id": "a"},\n  {"db_id" 3}]', "dev.json, line 2, column 12: not valid JSON"),
        ("[", "dev.json, line 1, column 2: not valid JSON"),
        ("{}", "dev.json holds a dict, not a list: is it the right file?"),
        ('[{"db_id": "a", "question": "b", "SQL": "c"}]', "dev.json, question 0: no 'query'"),
        ('["a"]', "dev.json, question 0: a str stands where a question should"),
    ],
)
def test_a_malformed_release_is_refused_with_the_place(tmp_path, text, found):
    (tmp_path / "dev.json").write_text(text)
    assert found in refused(tmp_path, tmp_path / "run", "--split", "dev", benchmark="spider")


def test_a_folder_that_is_not_there_or_holds_something_else_is_refused(tmp_path):
    missing = tmp_path / "no" / "where"
    error = refused(missing, tmp_path / "run")
    assert f"no such data folder: {missing}: give the folder of the unpacked release to --data" in error
    data, other = make_data(tmp_path / "data", 1), tmp_path / "other"
    other.mkdir()
    assert "no such data folder" in refused(data / "train.jsonl", tmp_path / "run")
    error = refused(other, tmp_path / "run", benchmark="bird")
    assert f"no 'train' questions of bird in {other}: is this the folder of a bird release?" in error
    assert "is this the folder of a spider release?" in refused(data, tmp_path / "run", benchmark="spider")
    assert "no 'dev' questions of data in" in refused(data, tmp_path / "run", "--split", "dev")
    assert "--split train" in refused(data, tmp_path / "run", "--split", "no-such-split")


def test_birds_release_given_as_spiders_is_refused(shared_data, tmp_path):
    error = refused(shared_data / "bird" / "dev_20240627", tmp_path / "run", "--split", "dev", benchmark="spider")
    assert "dev.json, question 0: no 'query': every question needs db_id, question, query" in error


# Databases


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        (b"", "is empty (0 bytes): copy or unpack the file again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a SQLite file (it begins with 'version https://'"),
        (b"SQLite format 3\0" + b"\x01" * 5000, "cannot be read ("),
        (b"SQLite format 3\0", "cannot be read ("),
    ],
)
def test_a_damaged_database_is_refused_by_name(tmp_path, contents, found):
    data = make_data(tmp_path / "data", 1)
    replaced(SHOP_FILE, contents)(data)
    error = refused(data, tmp_path / "run")
    assert error.startswith(f"database {data / SHOP_FILE} ") and found in error


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_database_cut_off_while_it_was_copied_is_refused(tmp_path, cut):
    data = make_data(tmp_path / "data", 1)
    path = data / SHOP_FILE
    path.unlink()
    rows = "".join(f"INSERT INTO item VALUES ({n}, 'lamp {n}', 1.0, 'home');" for n in range(10, 3000))
    make_database(path, f"{SHOP} BEGIN; {rows} COMMIT; CREATE TABLE last (x); INSERT INTO last VALUES (1);")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    assert f"database {path} cannot be read (" in refused(data, tmp_path / "run")


def test_a_folder_where_a_database_should_be_is_refused(tmp_path):
    data = make_data(tmp_path / "data", 1)
    (data / SHOP_FILE).unlink()
    (data / SHOP_FILE).mkdir()
    assert f"database {data / SHOP_FILE} is a folder" in refused(data, tmp_path / "run")


def test_a_missing_database_is_a_warning_and_its_question_stays(tmp_path):
    data = make_data(tmp_path / "data", 3)
    (data / SHOP_FILE).unlink()
    result = excot("questions", "folder", "--data", data, "--out", tmp_path / "run")
    assert result.code == 0
    assert result.err == "warning: 2 of 3 questions have no database file: shop (2)\n"
    assert [row["schema"] is None for row in Run(tmp_path / "run").read("questions")] == [True, False, True]


# Options


def test_unknown_options_in_a_config_file_are_refused_with_the_nearest_name(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("benchmark: folder\nsplt: dev\n")
    error = refused(make_data(tmp_path / "data", 1), tmp_path / "run", "--config", str(config), code=2)
    assert error == f"{config}: unknown option 'splt': did you mean 'split'?"


# The disk


@pytest.mark.parametrize("verb", ["questions", "generate", "verify", "sft", "pairs", "demo"])
def test_a_run_folder_below_a_file_is_refused(tmp_path, verb):
    (tmp_path / "file").write_text("mine")
    data = make_data(tmp_path / "data", 1)
    arguments = {"questions": ["folder", "--data", data], "generate": ["--backend", "teacher"]}
    for out in (tmp_path / "file" / "run", tmp_path / "file"):
        result = excot(verb, *arguments.get(verb, []), "--out", out)
        assert result.code == 1 and str(tmp_path / "file") in result.error() and "Not a directory" in result.error()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with very little room."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no mount command on this system")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mount = subprocess.run(command, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a small file system here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def incompressible(data: Path, count: int = 300) -> Path:
    rows = (question(question=os.urandom(300).hex()) for _ in range(count))
    replaced("train.jsonl", "".join(rows))(data)
    return data


def test_a_full_disk_leaves_nothing_half_written(tmp_path, small_disk):
    data = incompressible(make_data(tmp_path / "data", 1))
    error = refused(data, small_disk / "run")
    assert "No space left on device" in error and "make room" in error
    done(
        "questions", "folder", "--data", data, "--out", small_disk / "run", "--limit", 10
    )  # and the room is free again


def test_a_disk_that_fills_up_leaves_the_old_dataset_as_it_was(tmp_path, small_disk):
    data = make_data(tmp_path / "data", 3)
    out = read_data(data, small_disk / "run")
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    incompressible(data)
    result = excot("questions", "folder", "--data", data, "--out", out, "--overwrite")
    assert result.code == 1 and "No space left on device" in result.error()
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before
    assert Run(out).entry("questions")["rows"] == 3


def test_a_disk_that_fills_up_while_answers_come_keeps_those_that_fit(tmp_path, small_disk):
    out = read_data(make_data(tmp_path / "data", 60), small_disk / "run")
    command = ("generate", "--out", out, "--backend", "teacher", "--n", 4)
    result = excot(*command)
    assert result.code == 1 and "No space left on device" in result.error()
    assert f"cannot write {out}/.excot/generations.jsonl" in result.error()
    lines = (Path(out) / ".excot" / "generations.jsonl").read_bytes().splitlines()
    assert 1 < len(lines) < 60 and all(map(json.loads, lines))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    done(*command)
    assert Run(out).entry("generations")["candidates"] == 240


LIMITED = """
import resource, sys
from excot.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_file_size_limit_leaves_nothing_half_written(tmp_path):
    data, out = incompressible(make_data(tmp_path / "data", 1)), tmp_path / "run"
    process = python(LIMITED, "questions", "folder", "--data", data, "--out", out)
    told, said = process.communicate()
    assert (process.returncode, told) == (1, "")
    (line,) = said.splitlines()
    assert line.startswith("excot: cannot write ") and "File too large" in line
    assert [path.name for path in out.rglob("*")] == [".excot", "lock"]
