"""Whether an adapter fits a model, said before any engine starts; and vLLM that is not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from excot.errors import ExcotError
from excot.llm.adapter import adapter_rank
from excot.llm.base import FatalBackendError
from excot.llm.vllm import VLLM

pytest.importorskip("torch")
pytest.importorskip("peft")


def save_adapter(folder: Path, **changes: Any) -> Path:
    """A LoRA adapter for a model like the random Llama, but for some ``changes`` of its size."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2} | changes
    network = LlamaForCausalLM(LlamaConfig(vocab_size=40, **size))
    options = LoraConfig(r=4, rank_pattern={"v_proj": 12}, target_modules=["q_proj", "v_proj", "down_proj"])
    get_peft_model(network, options).save_pretrained(folder)
    return folder


def refusal(adapter: Path, model: Path) -> str:
    with pytest.raises(FatalBackendError) as caught:
        adapter_rank(str(adapter), str(model))
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def test_the_rank_is_the_largest_of_all_layers(llama_folder: Path, tmp_path: Path) -> None:
    assert adapter_rank(str(save_adapter(tmp_path)), str(llama_folder)) == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 16}, "down_proj is for 16 x 64 weights, the model's are 32 x 64"),
        ({"hidden_size": 64}, "down_proj is for 64 x 64 weights, the model's are 32 x 64"),
        ({"intermediate_size": 96}, "for 32 x 96 weights, the model's are 32 x 64"),
        ({"num_hidden_layers": 3}, "weights for model.layers.2."),
    ],
)
def test_an_adapter_of_another_model_is_told_from_its_weights(
    llama_folder: Path, tmp_path: Path, changes: dict[str, int], words: str
) -> None:
    message = refusal(save_adapter(tmp_path, **changes), llama_folder)
    assert f"the adapter {tmp_path} does not fit {llama_folder}" in message
    assert words in message


def test_an_adapter_of_another_architecture_does_not_fit(llama_folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    network = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=40))
    get_peft_model(network, LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)).save_pretrained(tmp_path)
    assert "weights for transformer.h.0.attn.c_attn, which the model lacks" in refusal(tmp_path, llama_folder)
    network.save_pretrained(tmp_path / "its-own")
    assert adapter_rank(str(tmp_path), str(tmp_path / "its-own")) == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [(None, "holds no adapter"), ("{", "adapter_config.json is no LoRA adapter's"), ("{}", "no LoRA adapter's ('r')")],
)
def test_a_folder_that_holds_no_lora_adapter_is_named(
    llama_folder: Path, tmp_path: Path, settings: str | None, words: str
) -> None:
    if settings:
        (tmp_path / "adapter_config.json").write_text(settings)
    assert words in (message := refusal(tmp_path, llama_folder))
    assert str(tmp_path) in message


def test_an_adapter_without_readable_weights_is_named(llama_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    assert f"cannot hold the adapter {tmp_path} against {llama_folder}" in refusal(tmp_path, llama_folder)


def test_vllm_that_is_not_installed_is_one_line_with_the_remedy(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ExcotError, match=r"^vllm is not installed: pip install 'excot\[vllm\]'$"):
        VLLM(str(llama_folder))


def test_questions_of_one_database_come_after_one_another() -> None:
    questions = [{"id": id, "db_id": db_id} for id, db_id in enumerate("abacab")]
    assert [question["id"] for question in sorted(questions, key=VLLM.order)] == [0, 2, 4, 1, 5, 3]
