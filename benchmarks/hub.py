"""A large verified dataset to a Hub on this machine and back: seconds, and the peak memory of each process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROWS, CANDIDATES, WORDS = 300_000, 4, 250
REPO = "team/large"

_WRITE = "from benchmarks.hub import write; write({out!r}, {rows})"
_PUSH = "from excot.cli import main; assert main(['push', {out!r}, {repo!r}, '--tag', 'v1']) == 0"
_LOAD = """
from datasets import load_dataset
rows = load_dataset({repo!r}, "verified", revision="v1", split="train")
assert len(rows) == {rows} and rows[-1]["id"] == "large-train-{last}", rows
"""
_STREAM = """
from datasets import load_dataset
rows = load_dataset({repo!r}, "verified", revision="v1", split="train", streaming=True)
assert sum(1 for row in rows) == {rows}
"""
_PULL = "from excot.cli import main; assert main(['pull', {repo!r} + '@v1', {copy!r}]) == 0"
# Not `ru_maxrss`, which begins with what the parent held when it started the process.
_PEAK = "\nfor line in open('/proc/self/status'):\n    if line.startswith('VmHWM'): print(line.split()[1])\n"


def run(rows: int = ROWS) -> list[dict[str, Any]]:
    """Seconds and peak memory of each step; the ratio is the time of copying the same bytes to that of the step."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub import HubServer

    results = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        names = {
            "out": str(folder / "run"),
            "copy": str(folder / "copy"),
            "repo": REPO,
            "rows": rows,
            "last": rows - 1,
        }
        with HubServer(folder / "large") as hub:
            environment = {**os.environ, **hub.environment(folder / "home"), "PYTHONPATH": str(ROOT)}
            steps = {"write": _WRITE, "push": _PUSH, "load_dataset": _LOAD, "streamed": _STREAM, "pull": _PULL}
            for what, program in steps.items():
                started = time.perf_counter()
                command = [sys.executable, "-c", program.format(**names) + _PEAK]
                ended = subprocess.run(command, env=environment, cwd=ROOT, text=True, capture_output=True, check=False)
                seconds = time.perf_counter() - started
                if ended.returncode:
                    raise SystemExit(ended.stderr[-2000:])
                peak = int(ended.stdout.split()[-1]) / 1000
                results.append({"what": f"hub: {what}", "seconds": seconds, "note": f"peak {peak:,.0f} MB"})
        shards = [*(folder / "run").rglob("*.parquet")]
        size = sum(shard.stat().st_size for shard in shards)
        started = time.perf_counter()
        for shard in shards:
            subprocess.run(["cp", shard, folder / "plain-copy"], check=True)
        plain = time.perf_counter() - started
    results[0]["note"] += f"; {rows:,} rows, {size / 1e9:.2f} GB in {len(shards)} files"
    return [{**result, "ratio": plain / result["seconds"]} for result in results]


def write(out: str, rows: int) -> None:
    """A run folder whose verified dataset has so many rows."""
    from excot.builders.columns import QUESTIONS, VERIFIED
    from excot.run import Run

    run = Run(out)
    with run.begin("questions", {"benchmark": "folder", "split": "train"}) as stage:
        stage.write(_rows(1), QUESTIONS, "train", databases={})
    with run.begin("verified", {"timeout": 5.0}, ("questions",)) as stage:
        counts = {"statuses": {"ok": rows * CANDIDATES}, "golds": {"ok": rows}, "matches": {"set": rows}}
        stage.write(_rows(rows), VERIFIED, "train", **counts, questions_with_a_match={"set": rows})


def _rows(count: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(5_000)]
    schema = " ".join(chance.choices(words, k=200))
    for number in range(count):
        texts = [" ".join(chance.choices(words, k=WORDS)) for _ in range(CANDIDATES)]
        verdict = {"status": "ok", "sql": "SELECT 1", "matches": dict.fromkeys(("set", "multiset"), True), "rows": 1}
        yield {
            "id": f"large-train-{number}",
            "benchmark": "folder",
            "split": "train",
            "db_id": f"db{number % 100}",
            "question": texts[0][:80],
            "gold_sql": "SELECT 1",
            "schema": schema,
            "candidates": [{"text": text, "finish_reason": "stop", **verdict} for text in texts],
            "gold": {"status": "ok", "rows": 1, "seconds": 0.001, "error": None},
        }
