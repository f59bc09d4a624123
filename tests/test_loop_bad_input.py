"""A loop that cannot go well is refused in one line before any work starts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import make_data
from command import Finished, excot
from filelock import FileLock
from loops import Place

from excot.loop.model_files import record_files
from excot.loop.outputs import Outputs
from excot.loop.settings import read_settings
from excot.loop.state import State
from excot.loop.steps import all_steps
from excot.run import Run

pytest.importorskip("trl")

Break = Callable[[Place], object]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return make_place(tmp_path)


def make_place(tmp_path: Path) -> Place:
    """What a loop needs, with a student that only looks like one: nothing of it is ever loaded here."""
    data = make_data(tmp_path / "data", 6)
    rows = (data / "train.jsonl").read_text().replace("What about", "And what of")
    (data / "dev.jsonl").write_text(rows)
    right = "SELECT name FROM item WHERE price > 0"
    (tmp_path / "answers.jsonl").write_text(json.dumps({"question_id": 0, "candidates": [right]}) + "\n")
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text('{"model_type": "llama"}')
    (student / "tokenizer.json").write_text("{}")
    (student / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return Place(tmp_path)


def state_of(folder: Path) -> dict[str, bytes]:
    locks = ("loop.lock", "children")
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in locks}


def refused(file: str, *flags: str, code: int = 1) -> str:
    """The error, after seeing that nothing was written; a plan is refused in the same words."""
    folder = Path(file).parent
    before = state_of(folder)
    result: Finished = excot("run", file, *flags)
    assert (result.code, result.out) == (code, ""), result
    assert state_of(folder) == before
    error = result.error()
    plan = excot("run", file, *flags, "--dry-run")
    assert (plan.code, plan.error()) == (code, error)
    assert state_of(folder) == before
    return error


# The file


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"ofpolicy": {}}, "unknown option 'ofpolicy'", "did you mean 'offpolicy'?"),
    ({"student": None}, "student is missing", "give it"),
    ({"rounds": "two"}, "rounds is 'two'", "a whole number"),
    ({"rounds": -1}, "rounds is -1", "0 or more"),
    ({"onpolicy": None}, "rounds is 1, but onpolicy is missing", "rounds: 0"),
    ({"train": {"slit": "train"}}, "train: unknown option 'slit'", "did you mean 'split'?"),
    ({"train": {"benchmark": "sparrow"}}, "train: BENCHMARK is 'sparrow'", "spider, bird, folder"),
    ({"dev": {"out": "x"}}, "dev: out is for the loop to say", "leave out out"),
    ({"teacher": {"n": 0}}, "teacher: --n is 0", "at least 1"),
    ({"teacher": {"prompt": "nonsense"}}, "nonsense", "prompt"),
    ({"teacher": {"backend": "openai", "from": None}}, "teacher: --backend openai needs a model", "--model NAME"),
    ({"verify": {"timeot": 3}}, "verify: unknown option 'timeot'", "did you mean 'timeout'?"),
    ({"sft": {"recipe": "none.yaml"}}, "sft: there is no recipe none.yaml", "a recipe's YAML file"),
    ({"sft": {"recipee": "x"}}, "sft: unknown option 'recipee'", "did you mean 'recipe'?"),
    ({"sft": {"accelerate_config": "no.yaml"}}, "sft: there is no accelerate config no.yaml", "accelerate_configs/"),
    ({"sft": {"num_processes": 0}}, "sft: num_processes is 0", "1 or more"),
    ({"sft": {"training": {"lerning_rate": 1}}}, "sft: ", "did you mean 'learning_rate'?"),
    ({"sft": {"training": {"output_dir": "x"}}}, "sft: output_dir is for the loop to say", "leave output_dir out"),
    ({"sft": {"sampling": {"n": 3}}}, "sft: sampling is for onpolicy", "the teacher's answers"),
    ({"sft": {"data": {"chose": "all"}}}, "sft.data: unknown option 'chose'", "did you mean 'choose'?"),
    ({"offpolicy": {"data": {"strategy": "far"}}}, "offpolicy.data: --strategy is 'far'", "nearest, farthest"),
    ({"onpolicy": {"sampling": {"few_shots": 3}}}, "onpolicy.sampling: few_shots is for the loop", "leave few_shots"),
    ({"onpolicy": {"sampling": {"backend": "openai"}}}, "backend is 'openai'", "give transformers or vllm"),
    ({"score": {"model": "x"}}, "score: model is for the loop to say", "leave model out"),
    ({"score": {"backend": "azure"}}, "score: backend is 'azure'", "give transformers or vllm"),
    ({"push": {"public": True}}, "push: --repo is missing", "give it"),
    ({"push": {"repo": "team/birds", "tags": "x"}}, "push: unknown option 'tags'", "did you mean 'tag'?"),
]


@pytest.mark.parametrize(("changes", "problem", "remedy"), WRONG, ids=[problem for _, problem, _ in WRONG])
def test_what_is_wrong_in_the_file_is_named_with_what_may_stand_there(place, tmp_path, changes, problem, remedy):
    error = refused(place.file(tmp_path / "loop", **changes), code=2)
    assert problem in error and remedy in error and "loop.yaml" in error


@pytest.mark.parametrize(
    ("text", "found"), [("out: [", "is not YAML"), ("[1]", "holds no options"), (None, "there is no file")]
)
def test_a_file_that_is_none(tmp_path, text, found):
    path = tmp_path / "loop.yaml"
    if text:
        path.write_text(text)
    assert found in refused(str(path), code=2)


def test_a_round_that_there_is_not(place, tmp_path):
    file = place.file(tmp_path / "loop")
    assert "--from-round is 2, but rounds is 1" in refused(file, "--from-round", "2", code=2)


# What it needs


def gone(name: str) -> Break:
    def change(place: Place) -> None:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def written(name: str, content: bytes) -> Break:
    return lambda place: (place.folder / name).write_bytes(content)


MISSING: list[tuple[Break, str]] = [
    (gone("student"), "student: there is no folder"),
    (gone("student/config.json"), "it has no config.json"),
    (written("student/config.json", b"{"), "cannot read"),
    (written("student/config.json", b"{}"), "names no model_type"),
    (gone("student/tokenizer.json"), "has no tokenizer"),
    (gone("student/model.safetensors"), "has no weights"),
    (written("student/model.safetensors", b"version https://git-lfs"), "is cut off or no safetensors file"),
    (written("student/model.safetensors", (9999).to_bytes(8, "little") + b"{}"), "is cut off or no safetensors file"),
    (written("student/adapter_config.json", b'{"base_model_name_or_path": "./none"}'), "there is no folder ./none"),
    (gone("data/database"), "train: none of the 2 databases of its questions is in"),
    (gone("data/dev.jsonl"), "dev: no 'dev' questions of data"),
    (written("data/train.jsonl", b"{"), "train: "),
    (gone("data"), "train: no such data folder"),
    (gone("answers.jsonl"), "answers.jsonl (No such file or directory): give --from"),
]


@pytest.mark.parametrize(("change", "problem"), MISSING, ids=[f"{k} {name}" for k, (_, name) in enumerate(MISSING)])
def test_what_is_missing_is_found_before_any_work(place, tmp_path, change, problem):
    file = place.file(tmp_path / "loop")
    change(place)
    assert problem in refused(file)


def test_a_student_of_the_hub_while_offline(place, tmp_path):
    file = place.file(tmp_path / "loop", student="org/model")
    error = refused(file)
    assert "student: there is no folder org/model, and HF_HUB_OFFLINE forbids" in error


def test_a_model_is_not_scored_on_what_it_learns(place, tmp_path):
    file = place.file(tmp_path / "loop", dev={"split": "train", "limit": 2})
    assert "train and dev have 2 questions in common, first data-train-0000" in refused(file)


def test_a_teacher_without_a_key(place, tmp_path, clean_environment):
    file = place.file(tmp_path / "loop", teacher={"backend": "openai", "model": "gpt-4o", "from": None})
    error = refused(file)
    assert "teacher: " in error and "OPENAI_API_KEY" in error


def test_a_library_that_is_not_installed(place, tmp_path, monkeypatch):
    from importlib.util import find_spec

    file = place.file(
        tmp_path / "loop", onpolicy={"sampling": {"backend": "vllm", "device": None, "batch_size": None}}
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "vllm" else find_spec(name))
    assert refused(file) == "vllm is not installed: pip install 'excot[vllm]'"


# What is there already


@pytest.fixture
def begun(begun_once: Path, tmp_path: Path) -> str:
    """The file of a loop that has come as far as the SFT model, by its notes."""
    shutil.copytree(begun_once, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path).file(tmp_path / "loop")


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("begun"))
    file = place.file(place.folder / "loop")
    settings = read_settings(file)
    out = settings.out
    for words in (
        ["questions", "folder", "--data", place.folder / "data", "--out", out],
        ["questions", "folder", "--data", place.folder / "data", "--split", "dev", "--out", settings.dev_out],
        ["generate", "--backend", "replay", "--from", place.folder / "answers.jsonl", "--prompt", "direct"]
        + ["--out", out],
        ["verify", "--processes", 1, "--out", out],
        ["sft", "--choose", "all", "--out", out],
    ):
        assert excot(*words).code == 0, words
    model = Path(out) / "models" / "sft"
    shutil.copytree(place.folder / "student", model)
    steps = {step.name: step for step in all_steps(settings)}
    state = State(out)
    for name in ("questions", "dev_questions", "generations", "verified", "sft_data", "sft"):
        state.begin(name, steps[name].asked, Outputs(settings, state).inputs(steps[name]))
        state.finish(name, 1.0, 1.0)
    state.models["sft"] = {"path": str(model), "files": record_files(model)}
    state.save()
    return place.folder


def changed(file: str, **changes: Any) -> str:
    from loops import laid_over

    path = Path(file)
    path.write_text(yaml.safe_dump(laid_over(yaml.safe_load(path.read_text()), changes)))
    return file


def test_a_dataset_that_was_edited_by_hand(begun, tmp_path):
    (path,) = (tmp_path / "loop" / "generations").glob("*.parquet")
    path.write_bytes(path.read_bytes() + b"x")
    error = refused(begun)
    assert "is not the file that the manifest describes" in error and "restore it" in error


def test_a_model_that_was_edited_by_hand(begun, tmp_path):
    (tmp_path / "loop" / "models" / "sft" / "model.safetensors").write_bytes((3).to_bytes(8, "little") + b"{ }")
    error = refused(begun)
    assert "models/sft/model.safetensors was changed since the model was made" in error
    assert "--from-round 0" in error


def test_questions_of_dev_that_are_gone(begun, tmp_path):
    (path,) = (tmp_path / "loop" / "dev" / "questions").glob("*.parquet")
    path.unlink()
    assert "is missing: restore it, or run" in refused(begun)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"train": {"limit": 3}}, "limit=None (now 3)"),
        ({"teacher": {"n": 2}}, "n=None (now 2)"),
        ({"sft": {"training": {"learning_rate": 0.5}}}, "learning_rate=0.0005 (now 0.5)"),
        ({"sft": {"training": {"per_device_train_batch_size": 1}}}, "global_batch=4 (now 1)"),
    ],
)
def test_what_is_finished_is_not_taken_for_what_is_asked_for_now(begun, changes, found):
    assert found in refused(changed(begun, **changes))


def test_what_does_not_matter_may_change(begun):
    changed(begun, verify={"processes": 2}, sft={"training": {"save_steps": 7}})
    plan = excot("run", begun, "--dry-run")
    assert plan.code == 0 and "16 steps, 6 of them done" in plan.out, plan.err


def test_two_loops_in_one_folder(begun, tmp_path):
    with FileLock(tmp_path / "loop" / ".excot" / "loop.lock"):
        error = excot("run", begun).error()
    assert error == f"another loop is at work in {tmp_path / 'loop'}: wait for it, or use another out"


def test_a_folder_that_cannot_be_written(place, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot write into" in excot("run", place.file(tmp_path / "closed" / "loop")).error()


def test_the_datasets_of_another_run_are_not_written_over(place, tmp_path):
    out = tmp_path / "loop"
    done = excot("questions", "folder", "--data", place.folder / "data", "--limit", 2, "--out", out)
    assert done.code == 0
    before = Run(out).manifest["stages"]
    result = excot("run", place.file(out))
    assert result.code == 1 and "already holds questions made with limit=2 (now None)" in result.err
    assert Run(out).manifest["stages"] == before
