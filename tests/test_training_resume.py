"""Training that was killed goes on where it was, and never over something else."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Finished
from training import World, launch, start, torchrun, train

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1, "lora_target_modules": ["q_proj", "v_proj"]}
CASES = {
    "sft": ({}, 1),
    "dpo with LoRA on two processes": ({"learning_rate": 1e-3, **LORA}, 2),
    "grpo": (
        {"dataset_config": "questions", "prompt": "direct", "max_length": None, "beta": 0.1, "num_generations": 2}
        | {"max_completion_length": 12, "learning_rate": 1e-3},
        1,
    ),
}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


def wait_for(path: Path, process: Any) -> None:
    for _ in range(4000):
        if path.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    assert path.exists(), process.stderr.read()


def kill(process: Any) -> None:
    """The launcher, and the processes that it started, which are in sessions of their own."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_started_again_ends_with_the_weights_of_an_undisturbed_one(case, world: World, tmp_path):
    options, processes = CASES[case]
    stage = case.split()[0]
    settings = {**options, "max_steps": 5, "save_steps": 2, "logging_steps": 1}
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"

    def run(out: Path) -> Finished:
        options = world.recipe(output_dir=out, **settings)
        return train(stage, options) if processes == 1 else launch(stage, options, torchrun(processes))

    done = run(undisturbed)
    assert done.code == 0, done.err
    launcher = torchrun(processes) if processes > 1 else []
    process = start(stage, world.recipe(output_dir=killed, **settings), launcher)
    wait_for(killed / "checkpoint-2" / "trainer_state.json", process)
    kill(process)
    assert not json.loads((killed / "training.json").read_text())["finished"]
    assert not list(killed.glob("*model.safetensors"))
    half = killed / "checkpoint-4"  # as a kill while it is written leaves it
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(killed / "checkpoint-2", half)
    (half / "trainer_state.json").write_text('{"best_global_step": nu')

    done = run(killed)
    assert done.code == 0, done.err
    assert f"going on from {killed}/checkpoint-2" in done.err
    one, other = weights(undisturbed), weights(killed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def nano(world: World, **options: Any) -> list[str]:
    """A recipe for the smallest model: what it learns is not looked at."""
    return world.recipe(model_name_or_path=world.nano, **options)


@pytest.fixture
def begun(world: World, tmp_path: Path) -> Path:
    """A run that was stopped after its second step, as far as its folder tells."""
    out = tmp_path / "model"
    assert train("sft", nano(world, output_dir=out, max_steps=2, save_steps=2)).code == 0
    record = json.loads((out / "training.json").read_text())
    (out / "training.json").write_text(json.dumps({**record, "finished": False}))
    (out / "model.safetensors").unlink()
    return out


def test_a_run_begun_with_other_settings_is_not_gone_on_with(begun, world):
    for change, named in (
        ({"learning_rate": 5e-4}, "learning_rate=0.001 (now 0.0005)"),
        ({"per_device_train_batch_size": 1}, "global_batch=2 (now 1)"),
        ({"test_split_size": 0.5}, "rows="),
    ):
        error = train(
            "sft",
            nano(world, output_dir=begun, save_steps=2, **{"max_steps": 2, **change}),
        ).err
        assert f"excot: {begun} holds a run begun with {named}" in error
        assert "--overwrite to train anew, or another --output_dir" in error
    assert (begun / "checkpoint-2").is_dir()


def test_the_same_global_batch_by_other_means_goes_on(begun, world):
    options = {"max_steps": 2, "save_steps": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    done = train("sft", nano(world, output_dir=begun, **options))
    assert done.code == 0, done.err
    assert f"going on from {begun}/checkpoint-2" in done.err


def test_a_finished_model_is_trained_over_only_when_told(begun, world):
    recipe = nano(world, output_dir=begun, max_steps=2, save_steps=2)
    assert train("sft", recipe).code == 0
    before = (begun / "model.safetensors").read_bytes()
    (begun / "README.md").write_text((begun / "README.md").read_text() + "\nMy own words.\n")

    refused = train("sft", recipe)
    assert refused.code == 1
    assert f"excot: {begun} already holds a finished model: --overwrite to train anew" in refused.err
    assert (begun / "model.safetensors").read_bytes() == before

    other = train("sft", nano(world, output_dir=begun, max_steps=1, overwrite=True))
    assert other.code == 0, other.err
    assert (begun / "model.safetensors").read_bytes() != before
    assert [path.name for path in begun.glob("checkpoint-*")] == ["checkpoint-1"]
    assert "My own words." in (begun / "README.md").read_text()


def test_a_folder_with_a_model_of_somebody_else_is_left_alone(world, tmp_path):
    shutil.copytree(world.model, tmp_path / "model")
    done = train("sft", nano(world, output_dir=tmp_path / "model"))
    assert done.code == 1
    assert "holds a model that is not this recipe's: --overwrite to train anew" in done.err
    assert not (tmp_path / "model" / "training.json").exists()
