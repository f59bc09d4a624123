"""The run folder when things go wrong: whatever ends a process, the old dataset is whole or the new one is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from chain import make_data
from command import done, excot, python
from huggingface_hub import DatasetCard
from stages import begin, contents, load, row, write

from excot.errors import ExcotError
from excot.run import Run

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


def test_rows_that_fail_half_way_leave_what_was_there(tmp_path):
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


def test_killed_while_rows_are_written_the_old_dataset_is_whole(tmp_path):
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

with Run(folder).begin("questions", {}) as stage:  # what is imported for it, the processes below have already
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
        assert shard.is_file()
        write(folder, [row(3)], on_existing="overwrite")  # and the next start leaves nothing over
        assert len(list((folder / "questions").iterdir())) == 1
        assert sorted(path.name for path in (folder / ".excot").iterdir()) == ["lock"]
    assert seen == sorted(seen, reverse=True) and seen[0] and not seen[-1]
