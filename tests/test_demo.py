"""The demo's experiment goes its whole way, and what the README shows of it has its form."""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path

import pytest
from chain import rows_of
from command import ROOT, done, excot

from excot.demo.data import WORLDS, make_splits
from excot.demo.questions import has_closed_bound
from excot.run import Run

pytest.importorskip("trl")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODELS = ["base", "sft", "dpo", "control"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[Path, str]:
    """A quick demo's folder, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, done("demo", "--quick", "--out", out)


def form(text: str) -> str:
    """A text without its numbers, and without the white space that aligns them."""
    return re.sub(r"\s+", " ", re.sub(r"[+-]?[\d,.]*\d", "0", text.replace("<0.0001", "0")))


def test_every_model_is_scored_and_the_control_takes_what_preference_training_took(quick):
    out, said = quick
    noted = Run(out).manifest["loop"]
    assert [name for name in MODELS if name in noted["models"]] == MODELS
    scored = {row["system"] for row in rows_of(str(out / "dev"), "scores")}
    assert scored == set(noted["models"])
    taken = {name: step["cpu_seconds"] for name, step in noted["steps"].items()}
    assert all(taken[name] > 0 for name in ("sft", "dpo", "control"))
    record = [line for line in said.splitlines() if re.match(r"  \d+ steps; the model is in .*control", line)]
    preferring = sum(taken.get(part, 0) for part in ("pairs", "dpo", "generations_round1", "verified_round1"))
    steps = int(re.match(r"  (\d+)", record[0])[1])
    assert steps == max(1, round(8 * preferring / taken["sft"]))
    assert (out / "demo.md").read_text("utf-8") in said + "\n"


def test_started_again_it_does_nothing_anew_and_says_the_same(quick):
    out, said = quick
    before = time.monotonic()
    again = done("demo", "--quick", "--out", out)
    assert time.monotonic() - before < 30
    summary = (out / "demo.md").read_text("utf-8")
    assert summary in again + "\n" and summary in said + "\n"
    assert again.count("done before") >= 13


def test_a_folder_keeps_one_seed(quick):
    out, _ = quick
    error = excot("demo", "--quick", "--seed", 1, "--out", out).error()
    assert error == f"{out} holds the demo of seed 0, quick: give another --out"


def test_the_readme_shows_what_it_prints(quick):
    readme = (ROOT / "README.md").read_text("utf-8")
    (shown,) = re.findall(r"^\$ make demo\n.*?^\.\.\.\n(.*?)^```", readme, re.M | re.S)
    printed = form(quick[1])
    for line in filter(None, shown.splitlines()):
        # A model that has taken a few steps answers nothing right, so that there is no on-policy pair to learn from.
        assert form(line).strip() in printed or "dpo_round1" in line, line


def test_the_splits_share_no_question_and_the_files_of_a_database_differ(tmp_path):
    sizes = {"train": 60, "dev": 20, "test": 20}
    folders = [make_splits(tmp_path / str(place), seed, sizes, 3) for place, seed in enumerate((0, 0, 1))]
    texts = [{split: (folder / f"{split}.jsonl").read_text("utf-8") for split in sizes} for folder in folders]
    assert texts[0] == texts[1] != texts[2]
    lines = [line for split in sizes for line in texts[0][split].splitlines()]
    assert len(lines) == len(set(lines)) == 100
    assert 30 < sum(map(has_closed_bound, lines)) < 70
    for world in WORLDS:
        paths = sorted((folders[0] / "database" / world.db_id).glob("*.sqlite"))
        contents = []
        for path in paths:
            connection = sqlite3.connect(path)
            contents.append(str(connection.execute(f"SELECT * FROM {world.child.table} ORDER BY 1").fetchall()))
            connection.close()
        assert len(paths) == len(set(contents)) == 3
