"""Data much larger than memory should be goes to the Hub and comes back in little of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command import python
from hub import HubServer
from pushed import REPO, here, there

from benchmarks.hub import write
from excot.execution import file_hash
from excot.run import Run

# Not `ru_maxrss`, which begins with what the parent held when it started the process.
PEAK = "\nfor line in open('/proc/self/status'):\n    if line.startswith('VmHWM'): print(line.split()[1])\n"
LIMIT = 500_000  # kB


def peak(program: str, hub: HubServer, home: Path) -> int:
    """The most memory that a program in a process of its own has held, in kB."""
    process = python(program + PEAK, environment=hub.environment(home))
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-2000:]
    return int(out.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_file_of_two_gigabytes_is_streamed_both_ways(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    write(str(run), 100)
    (shard,) = (run / "verified").glob("*.parquet")
    with open(shard, "r+b") as file:  # a sparse one: nobody looks into it on the way
        file.truncate(2 * 10**9)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["verified"]["files"] = {f"verified/{shard.name}": file_hash(shard)}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with HubServer(tmp_path / "large") as hub:
        push = f"from excot.cli import main; assert main(['push', {str(run)!r}, {REPO!r}]) == 0"
        pull = f"from excot.cli import main; assert main(['pull', {REPO!r}, {str(copy)!r}]) == 0"
        assert peak(push, hub, tmp_path / "home") < LIMIT
        assert peak(pull, hub, tmp_path / "home") < LIMIT
    (pulled,) = (copy / "verified").glob("*.parquet")
    assert pulled.stat().st_size == 2 * 10**9 and file_hash(pulled) == file_hash(shard)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_dataset_of_many_rows_is_pushed_and_loaded_in_little_memory(tmp_path):
    """A thirtieth of what the benchmark does, whose 300,000 rows take no more memory."""
    run = tmp_path / "run"
    write(str(run), 10_000)
    rows = Run(run).manifest["stages"]["verified"]["rows"]
    load = f'import datasets as d\nassert len(d.load_dataset({REPO!r}, "verified", split="train")) == {rows}'
    with HubServer(tmp_path / "large") as hub:
        push = f"from excot.cli import main; assert main(['push', {str(run)!r}, {REPO!r}]) == 0"
        assert peak(push, hub, tmp_path / "home") < LIMIT
        assert peak(load, hub, tmp_path / "home") < LIMIT
        assert there(hub).keys() == here(run).keys()
