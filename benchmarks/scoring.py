"""`score` beside the official evaluators, as the package `nl2sql360` ships them, run live on the same real answers.

How often they agree, and how long a whole Spider system takes either way, from start to end of a process. The package
is fetched into a temporary folder; where it cannot be had, the benchmark says so and does without.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from excot.execution import available_cores
from excot.metrics.efficiency import reward, time_ratio
from excot.metrics.scoring import score

# nl2sql360 asks for database servers' clients and for pandas as well; only what its evaluators import is fetched.
PACKAGES = ["nl2sql360==1.1.0", "func-timeout", "loguru", "nltk", "psycopg2-binary", "pymysql", "sqlparse"]
OFFICIAL = Path(__file__).with_name("official.py")
SYSTEM = "pretrained_llama2_7b"
SPIDER_PAIRS, REPETITIONS, ROUNDS = 300, 100, 3
OURS = """
import json, sys
from excot.metrics.scoring import score
processes, source, target = sys.argv[1:]
pairs = json.load(open(source))
references = [{"gold_sql": pair["gold"], "db_id": pair["db_id"]} for pair in pairs]
answers = [pair["answer"] for pair in pairs]
scores = score(answers, references, pairs[0]["folder"], rule="test_suite", processes=int(processes))
json.dump([row["samples"][0]["matches"] for row in scores.details], open(target, "w"))
"""

Pair = dict[str, Any]


def run(data: Path) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the official test suite's time over each one's. Parity is printed."""
    with TemporaryDirectory() as folder:
        official = Official(Path(folder))
        if not official.is_there:
            note = f"SKIPPED: {PACKAGES[0]} cannot be installed here"
            return [{"what": "score: the official code", "seconds": 0.0, "ratio": 0.0, "note": note}]
        return [*_bird(data, official), *_spider(data, official)]


class Official:
    """The package in a folder of its own, and its evaluators as a program."""

    def __init__(self, folder: Path):
        self._folder = folder
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder / "packages"),
        ]
        fetched = subprocess.run([*command, *PACKAGES], capture_output=True, check=False)
        check = [sys.executable, "-c", "import nl2sql360.evaluator"]
        environment = {**os.environ, "PYTHONPATH": str(folder / "packages")}
        self.is_there = not (
            fetched.returncode or subprocess.run(check, env=environment, capture_output=True, check=False).returncode
        )

    def __call__(self, kind: str, pairs: list[Pair], seed: int = 0) -> list[dict[str, Any]]:
        """What the official code says of pairs; ``seed`` is that of Python's hashes."""
        found, _ = self.timed([str(OFFICIAL), kind], pairs, seed)
        return found

    def timed(self, program: list[str], pairs: list[Pair], seed: int = 0) -> tuple[list[dict[str, Any]], float]:
        """What a program makes of pairs, and how long it takes from start to end."""
        source, target = self._folder / "pairs.json", self._folder / "found.json"
        source.write_text(json.dumps(pairs))
        path = os.pathsep.join(map(str, (self._folder / "packages", Path(__file__).resolve().parents[1])))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}
        started = time.perf_counter()
        subprocess.run([sys.executable, *program, str(source), str(target)], env=environment, check=True)
        return json.loads(target.read_text()), time.perf_counter() - started


def _bird(data: Path, official: Official) -> list[dict[str, Any]]:
    """EX, Soft F1, VES and R-VES: every answer to BIRD's superhero questions, and some to Spider's."""
    bird = data / "bird" / "dev_20240627" / "dev_databases"
    pairs = _pairs(data / "candidates" / "bird_dev_superhero.jsonl", bird)
    some = _pairs(data / "candidates" / "spider_dev.jsonl", data / "spider" / "database")
    pairs += random.Random(0).sample(some, SPIDER_PAIRS)
    chance = random.Random(1)
    timed = [{**pair, "times": _times(chance)} for pair in pairs]
    theirs, others = official("bird", timed), official("bird", pairs, seed=1)
    started = time.perf_counter()
    ours = _scored(timed)
    seconds = time.perf_counter() - started
    seeded = sum(one["soft_f1"] != other["soft_f1"] for one, other in zip(theirs, others, strict=True))
    shares = [
        _parity("EX", pairs, ours, "set", theirs, "ex"),
        _parity("Soft F1, rows in order", pairs, ours, "soft_f1", theirs, "soft_f1_in_order"),
        _parity("VES, time ratios of given times", pairs, ours, "time_ratio", theirs, "time_ratio"),
        _parity("R-VES, rewards of given times", pairs, ours, "reward", theirs, "reward"),
        _parity("Soft F1 as shipped", pairs, ours, "soft_f1", theirs, "soft_f1"),
    ]
    print(f"Soft F1 as shipped: {seeded} of {len(pairs):,} have another value where Python's hashes have another seed")
    note = (
        f"EX, Soft F1, VES and R-VES of {len(pairs):,} answers: at least {min(shares[:4]):.2%} as by the official code"
    )
    return [{"what": "score: BIRD's measures", "seconds": seconds, "ratio": 1.0, "note": note}]


def _spider(data: Path, official: Official) -> list[dict[str, Any]]:
    """The test suite: one system's answers to all questions, and how long both take."""
    systems = json.loads((data / "candidates" / "spider_dev.systems.json").read_text())
    pairs = _pairs(data / "candidates" / "spider_dev.jsonl", data / "spider" / "database")
    pairs = pairs[systems.index(SYSTEM) :: len(systems)]
    programs = {
        "official test suite, one process": [str(OFFICIAL), "spider"],
        "ours, four rules, one worker": ["-c", OURS, "1"],
        f"ours, four rules, {available_cores()} workers": ["-c", OURS, str(available_cores())],
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    found = {}
    for _ in range(ROUNDS):  # by turns, so that what else the machine does meets all alike
        for name, program in programs.items():
            found[name], seconds = official.timed(program, pairs)
            times[name].append(seconds)
    verb = _seconds_of_the_verb(data, pairs)
    first, ours, both = programs
    share = _parity("Spider's test suite", pairs, found[ours], "test_suite", found[first], "test_suite")
    notes = {first: "", ours: f", {share:.2%} of the verdicts equal"}
    notes[both] = ", the verdicts of one worker" if found[both] == found[ours] else ", OTHER verdicts than one worker"
    times["`excot score --predictions`, four rules, details written"] = verb
    return [
        {
            "what": f"score: {name}",
            "seconds": min(seconds),
            "ratio": min(times[first]) / min(seconds),
            "note": f"{len(pairs)} answers of {SYSTEM}, start to end, best of {ROUNDS}{notes.get(name, '')}",
        }
        for name, seconds in times.items()
    ]


def _seconds_of_the_verb(data: Path, pairs: list[Pair]) -> list[float]:
    """How long the command takes from start to end, on a run folder that has the questions."""
    excot = [sys.executable, "-m", "excot.cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    times = []
    with TemporaryDirectory() as folder:
        run, file = Path(folder) / "run", Path(folder) / f"{SYSTEM}.jsonl"
        questions = ["questions", "spider", "--data", str(data / "spider"), "--split", "dev", "--out", str(run)]
        subprocess.run([*excot, *questions], env=environment, check=True, capture_output=True)
        answers = [{"question_id": pair["id"], "sql": pair["answer"]} for pair in pairs]
        file.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        score = ["score", "--out", str(run), "--predictions", str(file), "--missing", "skip", "--overwrite"]
        for _ in range(ROUNDS):
            started = time.perf_counter()
            subprocess.run([*excot, *score], env=environment, check=True, capture_output=True)
            times.append(time.perf_counter() - started)
    return times


def _pairs(file: Path, folder: Path) -> list[Pair]:
    """Every answer with its gold."""
    rows = map(json.loads, file.read_text("utf-8").splitlines())
    return [
        {
            "id": row["question_id"],
            "gold": row["gold_sql"],
            "answer": answer,
            "db_id": row["db_id"],
            "folder": str(folder),
            "database": str(folder / row["db_id"] / f"{row['db_id']}.sqlite"),
        }
        for row in rows
        for answer in row["candidates"]
    ]


def _times(chance: random.Random) -> list[tuple[float, float]]:
    """Seconds of gold and answer as a clock might give them: about some ratio, with noise and now and then a jolt."""
    factor = 2 ** chance.choice([-3, -1.5, -1, -0.5, 0, 0.5, 1, 2])

    def seconds(usual: float) -> float:
        return usual * chance.lognormvariate(0, 0.1) * (30 if chance.random() < 0.01 else 1)

    return [(seconds(1e-3 * factor), seconds(1e-3)) for _ in range(REPETITIONS)]


def _scored(pairs: list[Pair]) -> list[dict[str, Any]]:
    """Our verdicts on every pair, its Soft F1, and what its given times are worth."""
    found: list[dict[str, Any]] = []
    for folder in dict.fromkeys(pair["folder"] for pair in pairs):
        mine = [pair for pair in pairs if pair["folder"] == folder]
        references = [{"gold_sql": pair["gold"], "db_id": pair["db_id"]} for pair in mine]
        scores = score([pair["answer"] for pair in mine], references, folder, extras=["soft_f1"])
        for pair, row in zip(mine, scores.details, strict=True):
            (sample,) = row["samples"]
            right = sample["matches"]["set"]
            ratio = time_ratio(*zip(*pair["times"], strict=True)) if right else 0.0
            found.append({"set": right, "soft_f1": sample["soft_f1"], "time_ratio": ratio, "reward": reward(ratio)})
    return found


def _parity(
    what: str, pairs: list[Pair], ours: list[dict[str, Any]], own: str, theirs: list[dict[str, Any]], their: str
) -> float:
    """The share of the pairs with the same value, which is printed with the first ones that differ."""
    differing = [
        (pair, float(found[own]), float(official[their]))
        for pair, found, official in zip(pairs, ours, theirs, strict=True)
        if not math.isclose(found[own], official[their], rel_tol=1e-9)
    ]
    print(f"{what}: {len(pairs) - len(differing):,} of {len(pairs):,} as the official code")
    for pair, value, official in differing[:3]:
        print(f"    question {pair['id']}: ours {value:.4g}, official {official:.4g}, {pair['answer'][:80]!r}")
    return 1 - len(differing) / len(pairs)
