"""Local models through the stage ``generations``: adapters, prompts that are too long, models that do not load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chain import answers, make_run, rows_of
from command import Finished, excot
from random_llama import CONTEXT

from excot.run import Run

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")


@pytest.fixture
def template(tmp_path: Path) -> str:
    """A prompt that is short enough for the random model: the question alone, without the schema."""
    path = tmp_path / "short.jinja"
    path.write_text("{{ question }}")
    return str(path)


@pytest.fixture
def adapter(llama_folder: Path, tmp_path: Path) -> Path:
    """A LoRA adapter on the random model that changes what it says."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama_folder), config)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def generate(out: str, model: Path | str, *flags: object) -> Finished:
    local = ("--backend", "transformers", "--device", "cpu", "--max-tokens", 16, "--n", 2)
    return excot("generate", "--out", out, "--model", model, *local, *flags)


def without(folder: Path, target: Path, *names: str) -> Path:
    shutil.copytree(folder, target, ignore=lambda *_: names)
    return target


def test_the_seed_and_the_tokens_of_every_sample_are_recorded(
    tmp_path: Path, llama_folder: Path, template: str
) -> None:
    out = make_run(tmp_path, 3)
    assert generate(out, llama_folder, "--prompt", template).code == 0
    rows, entry = rows_of(out, "generations"), Run(out).entry("generations")
    seeds = [candidate["seed"] for row in rows for candidate in row["candidates"]]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    for row in rows:
        assert row["completion_tokens"] == sum(candidate["completion_tokens"] for candidate in row["candidates"])
    assert entry["completion_tokens"] == sum(row["completion_tokens"] for row in rows)
    assert entry["prompt_tokens"] == sum(row["prompt_tokens"] for row in rows)
    assert entry["cost"] is None

    (tmp_path / "greedy").mkdir()
    greedy = make_run(tmp_path / "greedy", 1)
    assert generate(greedy, llama_folder, "--prompt", template, "--temperature", 0).code == 0
    assert [candidate["seed"] for candidate in rows_of(greedy, "generations")[0]["candidates"]] == [None, None]


def test_the_student_is_asked_by_its_chat_template_without_examples_at_temperature_1_for_32_answers(
    tmp_path: Path, llama_folder: Path
) -> None:
    from excot.config import GenerateConfig

    config = GenerateConfig(out="x", backend="transformers", model=str(llama_folder))
    assert (config.n, config.temperature, config.top_p, config.few_shots) == (32, 1.0, 1.0, 0)
    out = make_run(tmp_path, 1)
    assert generate(out, llama_folder, "--prompt", "direct").code == 0
    (row,) = rows_of(out, "generations")
    assert json.loads(row["sampling"])["temperature"] == 1.0

    from transformers import AutoTokenizer

    from excot.builders.training import student_prompts

    messages = student_prompts(Run(out))(row)
    assert [message["role"] for message in messages] == ["system", "user"]
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert row["prompt_tokens"] == len(tokenizer(text, add_special_tokens=False)["input_ids"])


# -- adapters


def test_an_adapter_answers_in_place_of_its_base(
    tmp_path: Path, llama_folder: Path, adapter: Path, template: str
) -> None:
    found = {}
    for name, flags in (("base", ()), ("adapted", ("--adapter", adapter))):
        (tmp_path / name).mkdir()
        out = make_run(tmp_path / name, 3)
        assert generate(out, llama_folder, "--prompt", template, *flags).code == 0
        found[name] = [answers(row) for row in rows_of(out, "generations")]
    assert found["base"] != found["adapted"]
    entry = Run(out).entry("generations")
    assert entry["arguments"]["adapter"] == str(adapter)
    assert "adapter" not in Run(str(tmp_path / "base" / "run")).entry("generations")["arguments"]
    assert generate(out, llama_folder, "--prompt", template).error().startswith(f"{out} already holds generations")


def test_an_adapter_equals_the_model_that_it_makes_of_its_base(
    tmp_path: Path, llama_folder: Path, adapter: Path, template: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama_folder), adapter)
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path / "merged")
    found = []
    for name, model, flags in (("one", llama_folder, ("--adapter", adapter)), ("two", tmp_path / "merged", ())):
        (tmp_path / name).mkdir()
        out = make_run(tmp_path / name, 3)
        assert generate(out, model, "--prompt", template, "--temperature", 0, *flags).code == 0
        found.append([answers(row) for row in rows_of(out, "generations")])
    assert found[0] == found[1]


def _other_shape(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: torch.zeros(5, 5) for name in weights}, adapter / "adapter_model.safetensors")


def _other_layers(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["attention.wq"]}))


def _fewer_layers(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "layers.1" not in name},
        adapter / "adapter_model.safetensors",
    )


def _more_layers(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    more = {name.replace("layers.1", "layers.7"): tensor.clone() for name, tensor in weights.items()}
    save_file({**weights, **more}, adapter / "adapter_model.safetensors")


@pytest.mark.parametrize("damage", [_other_shape, _other_layers, _fewer_layers, _more_layers])
def test_an_adapter_that_does_not_fit_is_one_line(
    damage: Any, tmp_path: Path, llama_folder: Path, adapter: Path, template: str
) -> None:
    damage(adapter)
    out = make_run(tmp_path, 1)
    result = generate(out, llama_folder, "--prompt", template, "--adapter", adapter)
    assert result.code == 1
    assert f"the adapter {adapter} does not fit {llama_folder} (" in result.error()
    assert result.error().endswith("give the model that it was trained on")


def test_a_folder_without_an_adapter_is_named(tmp_path: Path, llama_folder: Path, template: str) -> None:
    out = make_run(tmp_path, 1)
    for folder in (tmp_path / "none", llama_folder):
        result = generate(out, llama_folder, "--prompt", template, "--adapter", folder)
        assert f"{folder} holds no adapter (there is no adapter_config.json)" in result.error()


# -- what cannot be asked


def test_a_prompt_that_is_too_long_is_recorded_with_its_tokens_and_the_run_goes_on(
    tmp_path: Path, llama_folder: Path
) -> None:
    out = make_run(tmp_path, 4)
    template = tmp_path / "padded.jinja"  # the third question alone gets a prompt that does not fit
    template.write_text("{{ question }}{% if '002' in question %}{{ ' w1' * 300 }}{% endif %}")
    result = generate(out, llama_folder, "--prompt", template)
    assert result.code == 0
    assert "warning: 1 questions are too long for the model" in result.err
    rows = rows_of(out, "generations")
    assert [row["failure"] for row in rows] == [None, None, "too_long", None]
    assert [len(row["candidates"]) for row in rows] == [2, 2, 0, 2]
    assert rows[2]["prompt_tokens"] > 300 > CONTEXT
    assert Run(out).entry("generations")["failures"] == {"too_long": 1}


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_model_that_is_not_there_or_has_no_template_is_one_line(
    dry_run: tuple[str, ...], tmp_path: Path, llama_folder: Path
) -> None:
    out = make_run(tmp_path, 1)
    assert f"no model folder {tmp_path}/none" in generate(out, tmp_path / "none", *dry_run).error()
    silent = without(llama_folder, tmp_path / "silent", "chat_template.jinja")
    assert f"the tokenizer of {silent} has no chat template" in generate(out, silent, *dry_run).error()
