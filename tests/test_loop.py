"""The whole method by one command: undisturbed, killed at any moment, extended, made anew from a round on."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import start
from loops import Place, make_place

from excot.loop.settings import read_settings
from excot.loop.steps import all_steps
from excot.run import Run

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("EXCOT_TEST_KILLS", "3"))
STEPS = 16
DATASETS = {
    *("questions", "generations", "verified", "sft", "pairs"),
    *("generations_round1", "verified_round1", "pairs_round1"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def finished(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop that nothing has disturbed: the folder in which it ran, with ``run/`` and ``said``."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "said").write_text(finish(folder, file(place, folder)))
    return folder


def file(place: Place, folder: Path, **changes: Any) -> str:
    """A loop's file for runs in this folder; ``out`` in it is relative, so that all of them make the same."""
    return place.file(folder / "run", out="run", **changes)


def begin(folder: Path, *arguments: object) -> Any:
    environment = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return start("run", *arguments, environment=environment, cwd=folder)


def finish(folder: Path, *arguments: object) -> str:
    process = begin(folder, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def noted(folder: Path) -> dict[str, Any]:
    return Run(folder / "run").manifest["loop"]


def timeless(value: Any) -> Any:
    """Rows without what they took."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name != "seconds"}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def rows(folder: Path) -> dict[str, Any]:
    """Every row of every dataset."""
    import pyarrow.parquet as pq

    return {
        f"{run.folder.name} {name}": [
            timeless(row) for path in sorted(entry["files"]) for row in pq.read_table(run.folder / path).to_pylist()
        ]
        for run in (Run(folder / "run"), Run(folder / "run" / "dev"))
        for name, entry in run.manifest["stages"].items()
    }


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    files = sorted((folder / "run" / "models").glob("*/model.safetensors"))
    return {f"{path.parent.name} {name}": value for path in files for name, value in load_file(path).items()}


def scores(folder: Path) -> dict[str, Any]:
    models = noted(folder)["models"]
    return {name: {key: value for key, value in model.items() if key != "files"} for name, model in models.items()}


def assert_same(one: Path, other: Path) -> None:
    """Two loops have made the same, apart from how long it took."""
    assert rows(one) == rows(other)
    assert scores(one) == scores(other) and noted(one)["rounds"] == noted(other)["rounds"]
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_one_command_makes_every_dataset_model_and_score(finished: Path) -> None:
    said = (finished / "said").read_text()
    assert [int(number) for number in re.findall(rf"^\[(\d+)/{STEPS}\] ", said, re.M)] == [*range(1, STEPS + 1)]
    assert {*Run(finished / "run").manifest["stages"]} == DATASETS
    table = Run(finished / "run" / "dev").entry("scores")["systems"]
    assert [*table] == ["base", "sft", "dpo", "dpo_round1"]
    for name, row in table.items():
        assert {key: noted(finished)["models"][name][key] for key in row} == row
        folder = "student" if name == "base" else f"run/models/{name}"
        assert re.search(rf"^  {name} +\S*{folder} +{row['exec_acc']:.1%} ", said, re.M), said
    assert "next: excot compare run/dev:base run/dev:dpo_round1" in said
    counts = noted(finished)["rounds"]["1"]
    assert counts["all_right"] + counts["all_wrong"] + counts["mixed"] == counts["questions"] == 10
    pairs = Run(finished / "run").entry("pairs")["rows"]
    assert counts["with_pair"] == Run(finished / "run", 1).entry("pairs")["rows"] and pairs
    prompts = {
        entry["prompt_id"] for entry in Run(finished / "run").manifest["stages"].values() if "prompt_id" in entry
    }
    assert len(prompts) == 1 and next(iter(prompts)).startswith("direct-")


def test_a_finished_loop_has_nothing_left_to_do_and_a_plan_writes_nothing(finished: Path, place: Place) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != "loop.lock"}

    before = state()
    said = finish(finished, "run.yaml", "--dry-run")
    assert state() == before
    assert f"{STEPS} steps, {STEPS} of them done" in said and "measured" in said and "not known yet" not in said
    assert "excot score --backend transformers" in said and "-m excot.recipes.dpo --config" in said

    started = time.monotonic()
    again = finish(finished, "run.yaml")
    assert again.count("  done before") == STEPS and time.monotonic() - started < 60
    assert {name for name, when in state().items() if before.get(name) != when} <= {
        str(finished / "run" / "manifest.json"),
        *(str(finished / part) for part in ("run", "run/.excot", "run/.excot/children", "run/.excot/lock")),
    }


def kill(process: Any) -> None:
    """Kill the loop alone, and see that nothing that it has started lives on."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE], alive


def wait_for_step(process: Any, number: int) -> bool:
    """Wait until a step begins; whether it has."""
    return any(line.startswith(f"[{number}/{STEPS}]") for line in process.stdout)


def moments(dice: random.Random, seconds: dict[int, float]) -> Iterator[tuple[int, float]]:
    """In which steps to kill, and how many seconds after their beginning."""
    for number in sorted(dice.sample(range(1, STEPS + 1), KILLS)):
        yield number, dice.uniform(0, seconds[number])


def test_a_loop_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    finished: Path, place: Place, tmp_path: Path
) -> None:
    path = file(place, tmp_path)
    names = [step.name for step in all_steps(read_settings(path))]
    seconds = {number: noted(finished)["steps"][name]["seconds"] for number, name in enumerate(names, start=1)}
    for number, delay in moments(random.Random(0), seconds):
        process = begin(tmp_path, path)
        if not wait_for_step(process, number):
            process.communicate()
            pytest.fail(f"no step {number}")
        time.sleep(delay)
        print(f"killed {delay:.1f} s after step {number} had begun", flush=True)
        kill(process)
    said = finish(tmp_path, path)
    assert "  done before" in said
    assert_same(finished, tmp_path)


def test_ctrl_c_is_one_line_and_ends_the_step_too(place: Place, tmp_path: Path) -> None:
    process = begin(tmp_path, file(place, tmp_path))
    wait_for_step(process, 1)
    time.sleep(1.0)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "stopped; what is finished is kept: start the same command again to go on"
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True))


def test_a_round_made_anew_is_dropped_once_and_each_round_is_a_tag_on_the_hub(
    copied: Path, finished: Path, place: Place, tmp_path: Path
) -> None:
    from datasets import load_dataset
    from hub import HubServer

    # Round 2 asks only what round 1 has not got right altogether.
    path = file(place, copied, rounds=2, skip_all_right=True, push={"repo": "team/loop", "tag": "v1"})
    kept = copied / "run" / "models" / "dpo" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    with HubServer() as hub:
        environment = {"OMP_NUM_THREADS": "1", **hub.environment(tmp_path / "home")}

        def again() -> Any:
            return start("run", path, "--from-round", 1, environment=environment, cwd=copied)

        process = again()
        for line in process.stdout:
            if line.startswith("[14/"):  # the verdicts of round 1: its answers are there
                break
        kill(process)
        answers = Run(copied / "run", 1).entry("generations")
        process = again()
        out, err = process.communicate()
        assert process.returncode == 0, f"{out}\n{err}"
        assert Run(copied / "run", 1).entry("generations") == answers  # and were not made once more
        assert {
            name: part for name, part in rows(copied).items() if name.startswith("run") and "round2" not in name
        } == {name: part for name, part in rows(finished).items() if name.startswith("run")}
        assert kept.stat().st_mtime_ns == before
        tags = hub.repos["dataset", "team/loop"]
        assert noted(copied)["tags"] == ["v1-round0", "v1-round1", "v1-round2"]
        files = {tag: {name.partition("/")[0] for name in tags.files(tag)} for tag in noted(copied)["tags"]}
        assert "pairs" in files["v1-round0"] and "pairs_round1" not in files["v1-round0"]
        assert "pairs_round1" in files["v1-round1"] and "pairs_round2" not in files["v1-round1"]
    right = {row["id"] for row in Run(copied / "run", 1).read("verified") if all_right(row)}
    assert right and noted(copied)["rounds"]["1"]["all_right"] == len(right)
    asked = {row["id"] for row in Run(copied / "run", 2).read("generations")}
    assert asked == {row["id"] for row in Run(copied / "run").read("questions")} - right
    (pairs,) = load_dataset(str(copied / "run"), "pairs_round2", cache_dir=str(tmp_path / "cache")).values()
    assert {row["id"] for row in pairs} <= asked


def all_right(row: dict[str, Any]) -> bool:
    return bool(row["candidates"]) and all(candidate["matches"]["set"] for candidate in row["candidates"])


def test_a_loop_stops_early_by_its_scores_and_goes_on_when_told(copied: Path, place: Place) -> None:
    dev = copied / "run" / "dev" / "manifest.json"  # as a score that is killed between its two datasets leaves it
    manifest = json.loads(dev.read_text())
    manifest["stages"]["scores"]["inputs"]["details"] = "earlier"
    dev.write_text(json.dumps(manifest))
    path = copied / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    models = manifest["loop"]["models"]
    models["dpo_round1"]["exec_acc"] = models["dpo"]["exec_acc"] = 0.5
    path.write_text(json.dumps(manifest))
    config = file(place, copied, rounds=2, stop_early=True)
    for _ in range(2):
        said = finish(copied, config)
        assert "stopped: dpo_round1 has 50.0% on dev, no more than dpo before it (50.0%)" in said
        assert not Run(copied / "run", 2).has("generations")
    plan = finish(copied, file(place, copied, rounds=2), "--dry-run")
    assert "21 steps, 16 of them done" in plan and "dpo training took before" in plan


def test_real_questions_of_spider_go_all_the_way_by_one_command(shared_data: Path, tmp_path: Path) -> None:
    """A random model learns one answer by heart: that is enough for a round of its own."""
    from excot.demo.model import make_llama

    (tmp_path / "spider").symlink_to(shared_data / "spider")
    texts = [json.dumps(row) for row in json.loads((shared_data / "spider" / "tables.json").read_text())[:40]]
    small = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    make_llama(tmp_path / "student", texts, vocab_size=1000, **small)
    spider = {"benchmark": "spider", "data": "spider"}
    path = Place(tmp_path).file(
        tmp_path / "run",
        out="run",
        train={**spider, "limit": 20},
        dev={**spider, "split": "dev", "limit": 10},
        teacher={"backend": "teacher", "n": 8, "from": None, "prompt": None},
        student="student",
        sft={"data": {"choose": "first", "limit": 1}, "training": SPIDER_SFT},
        offpolicy={"data": {"limit": 4}, "training": {"learning_rate": 1e-6, "max_length": 4096}},
        onpolicy={"sampling": {"n": 24, "limit": 1, "max_tokens": 600}},
        score={"max_tokens": 16},
    )
    said = finish(tmp_path, path)
    assert "20 questions on " in said and "10 questions on " in said and "all steps took" in said
    models = noted(tmp_path)["models"]
    assert {*models} >= {"base", "sft", "dpo"} and {model["rule"] for model in models.values()} == {"test_suite"}
    counts = noted(tmp_path)["rounds"]["1"]
    assert counts["questions"] == 1
    assert ("dpo_round1" in models) == bool(
        counts.get("with_pair")
    )  # else there was nothing to learn from, and it says so
    assert ("stopped: no pair comes of round 1" in said) != ("dpo_round1" in models)


SPIDER_SFT = {
    "max_steps": 60,
    "save_steps": 50,
    "per_device_train_batch_size": 1,
    "learning_rate": 3e-3,
    "max_length": 4096,
}
