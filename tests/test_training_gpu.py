"""What only a GPU can show: the launch files and kernels that a CPU cannot run. Skipped where there is none."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from training import World, accelerate, launch, train

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
GPU = {"use_cpu": None, "bf16": True, "learning_rate": 1e-4}


def assert_loads(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(weight.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("config", ["single_gpu", "fsdp2", "zero2", "zero3"])
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_each_launch_file_trains_a_model_that_loads(stage, config, world: World, tmp_path):
    processes = 1 if config == "single_gpu" else torch.cuda.device_count()
    changes = {"num_processes": processes, "use_cpu": False, "mixed_precision": "bf16"}
    done = launch(stage, world.recipe(output_dir=tmp_path / "model", **GPU), accelerate(tmp_path, config, **changes))
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "model" / "training.json").read_text())["world_size"] == processes
    assert_loads(tmp_path / "model")


@pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel is not installed")
def test_ligers_kernels_lose_nothing(world: World, tmp_path):
    def losses(**options: object) -> list[float]:
        out = tmp_path / f"model-{len(options)}"
        done = train("sft", world.recipe(output_dir=out, **GPU, **options))
        assert done.code == 0, done.err
        (state,) = out.glob("checkpoint-*/trainer_state.json")
        return [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "grad_norm" in entry]

    assert losses(use_liger_kernel=True) == pytest.approx(losses(), abs=0.05)


def test_execution_accuracy_is_measured_on_the_gpu(world: World, tmp_path):
    measured = {"ex_dataset": world.run, "ex_questions": 8, "eval_strategy": "steps", "eval_steps": 3}
    options = {**GPU, **measured, "ex_max_new_tokens": 16, "test_split_size": 0.2}
    done = train("sft", world.recipe(output_dir=tmp_path / "model", **options))
    assert done.code == 0, done.err
    assert "'eval_exec_acc':" in done.out
