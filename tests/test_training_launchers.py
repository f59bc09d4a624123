"""Every recipe through its real command line: one process, two by torchrun, DeepSpeed's ZeRO-2 and ZeRO-3."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import World, accelerate, launch, needs_compiler, torchrun

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

LAUNCHERS = ("torchrun", "zero2", "zero3")
GRPO = {
    "dataset_config": "questions",
    "prompt": "direct",
    "max_length": None,
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 12,
}


def settings_of(stage: str) -> dict[str, Any]:
    return {"sft": {}, "dpo": {"learning_rate": 1e-4}, "grpo": GRPO}[stage]


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model that each recipe trains in one process, trained when it is first asked for."""
    trained: dict[str, Path] = {}

    def find(stage: str) -> Path:
        if stage not in trained:
            trained[stage] = tmp_path_factory.mktemp(stage) / "model"
            done = launch(stage, world.recipe(output_dir=trained[stage], **settings_of(stage)))
            assert done.code == 0, done.err
            assert f"3 steps; the model is in {trained[stage]}" in done.out
        return trained[stage]

    return find


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "training.json").read_text())


def losses(folder: Path) -> list[float]:
    (state,) = folder.glob("checkpoint-*/trainer_state.json")
    return [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def assert_whole(folder: Path) -> None:
    """What is there is a model that plain transformers loads, tied as its base was, and says how it was made."""
    from safetensors import safe_open
    from transformers import AutoTokenizer

    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    model = load(folder)
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.prompt_id == record(folder)["prompt_id"] and model.config.prompt_id.startswith("direct-")
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert record(folder)["finished"] and not list(folder.glob(".final*"))


def launcher_of(name: str, folder: Path) -> list[str]:
    return torchrun(2) if name == "torchrun" else accelerate(folder, name)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo", "grpo"])
def test_one_process(stage, alone, world):
    assert_whole(alone(stage))
    assert record(alone(stage))["world_size"] == 1
    assert len(losses(alone(stage))) == 3
    before, after = load(Path(world.model)), load(alone(stage))
    changed = any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    assert changed or stage == "grpo"  # a random model's answers are all wrong, from which nothing can be learned


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_two_processes_with_half_the_batch_each_learn_the_same(stage, launcher, alone, world, tmp_path):
    out = tmp_path / "model"
    options = {**settings_of(stage), "per_device_train_batch_size": 1}
    done = launch(stage, world.recipe(output_dir=out, **options), launcher_of(launcher, tmp_path))
    assert done.code == 0, done.err
    assert record(out)["world_size"] == 2  # accelerate alone would start one on a CPU, and say nothing
    assert_whole(out)
    assert losses(out) == pytest.approx(losses(alone(stage)), abs=2e-3)
    for one, other in zip(load(out).parameters(), load(alone(stage)).parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_grpo_on_two_processes(launcher, world, tmp_path):
    out = tmp_path / "model"
    options = {**GRPO, "per_device_train_batch_size": 2, "max_steps": 2}
    done = launch("grpo", world.recipe(output_dir=out, **options), launcher_of(launcher, tmp_path))
    assert done.code == 0, done.err
    assert record(out)["world_size"] == 2
    assert_whole(out)
    assert "rewards/execution_reward/mean" in done.out


@pytest.mark.slow
@needs_compiler
def test_a_reference_computed_beforehand_is_that_of_the_model_as_it_is_now(world, tmp_path):
    """TRL's cache of it takes one model whose weights ZeRO-3 has split for any other."""
    model = Path(shutil.copytree(world.nano, tmp_path / "model"))
    out = tmp_path / "out"
    for _ in ("as it was", "retrained"):
        options = {"model_name_or_path": model, "max_steps": 1, "precompute_ref_log_probs": True, "overwrite": True}
        recipe = world.recipe(output_dir=out, **{**options, "per_device_train_batch_size": 1})
        done = launch("dpo", recipe, accelerate(tmp_path, "zero3"))
        assert done.code == 0, done.err
        assert losses(out) == [pytest.approx(0.6931, abs=1e-4)]  # log 2: it is its own reference
        weights = load(model)
        for weight in weights.parameters():
            weight.data.mul_(1.5)
        weights.save_pretrained(model)
