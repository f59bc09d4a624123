"""LoRA: adapters are trained, saved as adapters, and trained further; one that is not for its base is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from training import SIZES, World, accelerate, launch, needs_compiler, train

from excot.demo.model import make_llama

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("trl")

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0, "lora_target_modules": ["q_proj", "v_proj"]}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def adapter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SFT with LoRA makes."""
    out = tmp_path_factory.mktemp("adapter") / "sft"
    done = train("sft", world.recipe(output_dir=out, **LORA))
    assert done.code == 0, done.err
    return out


def test_an_adapter_is_saved_as_one_on_its_base(adapter, world):
    assert not list(adapter.glob("model*.safetensors"))
    assert all("lora_" in name for name in weights(adapter))
    model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter)
    assert model.peft_config["default"].base_model_name_or_path == world.model
    record = json.loads((adapter / "training.json").read_text())
    assert record["prompt_id"].startswith("direct-") and record["model"]["adapter"]["r"] == 4
    card = (adapter / "README.md").read_text()
    assert (
        "library_name: peft" in card and "| adapter | r 4, alpha 32" in card and "More Information Needed" not in card
    )


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_an_adapter_is_trained_further_on_its_base(stage, adapter, world, tmp_path):
    done = train(stage, world.recipe(model_name_or_path=adapter, output_dir=tmp_path / "out"))
    assert done.code == 0, done.err
    before, after = weights(adapter), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "out" / "ref").exists()  # the frozen copy that DPO compares with
    assert peft.PeftConfig.from_pretrained(tmp_path / "out").base_model_name_or_path == world.model
    assert json.loads((tmp_path / "out" / "training.json").read_text())["model"]["adapter"] == {"from": str(adapter)}


def test_dpo_on_an_adapter_begins_at_the_adapter_and_not_at_its_base(adapter, world, tmp_path):
    settings = {"model_name_or_path": adapter, "max_steps": 1, "learning_rate": 0.0}
    done = train("dpo", world.recipe(output_dir=tmp_path / "out", **settings))
    assert done.code == 0, done.err
    assert "'loss': '0.6931'" in done.out  # log 2: the model is its own reference
    one, other = weights(adapter), weights(tmp_path / "out")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("config", ["zero2", "zero3"])
def test_lora_under_deepspeed_learns_what_one_process_learns(config, adapter, world, tmp_path):
    options = {**LORA, "per_device_train_batch_size": 1}
    done = launch("sft", world.recipe(output_dir=tmp_path / "out", **options), accelerate(tmp_path, config))
    assert done.code == 0, done.err
    one, other = weights(adapter), weights(tmp_path / "out")
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_an_adapter_for_another_base_is_refused_in_one_line(adapter, world, tmp_path):
    def error(base: str) -> str:
        folder = tmp_path / "adapter"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(adapter, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
        done = train("sft", world.recipe(model_name_or_path=folder, output_dir=tmp_path / "out"))
        assert done.code == 1 and not (tmp_path / "out").exists()
        (line,) = (line for line in done.err.splitlines() if line.startswith("excot: "))
        return line

    texts = ["SELECT 1"]
    wider = make_llama(tmp_path / "wider", texts, **{**SIZES, "hidden_size": 256})
    deeper = make_llama(tmp_path / "deeper", texts, **{**SIZES, "num_hidden_layers": 3})
    shallower = make_llama(tmp_path / "shallower", texts, **{**SIZES, "num_hidden_layers": 1})
    for base in (wider, deeper, shallower):
        assert f"the adapter {tmp_path}/adapter does not fit its base model {base}" in error(base)
    assert "which is not there" in error(str(tmp_path / "gone"))
