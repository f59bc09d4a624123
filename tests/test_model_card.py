"""The card of a trained model: what stands in it, what the Hub reads in it, and whose words survive."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from excot.errors import ExcotError
from excot.hub.model_card import write_model_card
from excot.hub.results import write_into_card
from excot.training.output import Output

GOLDEN = Path(__file__).with_name("golden") / "model_card.md"

PROMPT = """\
{% block user %}
{{ schema }}

Question: {{ question }}
Answer in a block:
```sql
SELECT ...
```
{% endblock %}
"""

RECORD: dict[str, Any] = {
    "excot": "0.1.0",
    "stage": "dpo",
    "model": {
        "name": "Qwen/Qwen2.5-Coder-7B-Instruct",
        "revision": "main",
        "commit": "c03e6d358207e414f1eee0bb1891e29f1db0e242",
        "local": False,
        "adapter": None,
    },
    "data": [
        {
            "name": "team/bird-cot",
            "local": False,
            "config": "pairs",
            "revision": "v1",
            "commit": "5503434ddd753f426f4b38109466949a1217c2bb",
            "fingerprint": "0123456789abcdef0123456789abcdef",
        }
    ],
    "prompt_id": "mine-1234abcd",
    "rows": 8123,
    "lengths": "8,200 rows of 1,100 tokens (median), 4,000 (95%), 9,000 (longest); 77 over the limit of 8,192 dropped",
    "settings": {
        "learning_rate": 5e-7,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 1,
        "max_steps": -1,
        "global_batch": 64,
        "max_length": 8192,
        "beta": 0.1,
        "loss_type": ["sigmoid", "sft"],
        "loss_weights": None,
        "bf16": True,
        "seed": 42,
        "chat_template_path": "/home/somebody/template.jinja",
    },
    "world_size": 8,
    "versions": {"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
    "finished": True,
    "steps": 1270,
    "train_loss": 0.51234,
    "seconds": 5000.0,
    "exec_acc": {
        "value": 0.625,
        "low": 0.55627,
        "high": 0.68918,
        "step": 1250,
        "questions": 200,
        "dataset": "runs/bird-dev",
        "local": True,
        "rule": "set",
    },
    "launched": {"device": "cuda", "machines": 1, "sharding": "zero3"},
    "repository": "team/qwen-7b-dpo",
}

LOCAL = {
    "model": {
        "name": "/home/somebody/models/sft",
        "revision": "main",
        "commit": None,
        "local": True,
        "adapter": None,
    },
    "data": [
        {
            "name": "/home/somebody/runs/shop",
            "local": True,
            "config": "pairs",
            "revision": None,
            "commit": None,
            "fingerprint": None,
        }
    ],
    "exec_acc": {**RECORD["exec_acc"], "dataset": "/home/somebody/runs/shop-dev"},
    "repository": None,
}


def write(folder: Path, *, prompt: str | None = PROMPT, **changes: Any) -> ModelCard:
    """Write the card as training does, over the one that is there, and read it as the Hub's client does."""
    if prompt is not None:
        (folder / "prompt.jinja").write_text(prompt)
    write_model_card(folder / "README.md", folder.name, {**RECORD, **changes}, folder / "README.md")
    return ModelCard.load(folder / "README.md")


def row(value: float, **changes: Any) -> dict[str, Any]:
    """A row of the dataset ``scores``."""
    rules = {f"exec_acc_{rule}": value for rule in ("set", "multiset", "ordered", "test_suite")}
    bounds = {"exec_acc_low": value - 0.025, "exec_acc_high": value + 0.025}
    return {"system": "mine", "rule": "set", "questions": 1534, "exec_acc": value, **bounds, **rules, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "dpo-1"
    path.mkdir()
    return path


def test_the_card_is_the_one_that_was_agreed_on(folder):
    """With EXCOT_RENEW_GOLDEN=1 it is agreed on anew: read what `git diff` shows then."""
    write(folder)
    text = (folder / "README.md").read_text()
    if os.environ.get("EXCOT_RENEW_GOLDEN") == "1":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_what_the_hub_reads(folder):
    data = write(folder).data
    assert (data.base_model, data["base_model_relation"]) == ("Qwen/Qwen2.5-Coder-7B-Instruct", "finetune")
    assert (data.datasets, data.language, data.license) == (["team/bird-cot"], ["en"], None)
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert data.tags == ["text-to-sql", "excot", "trl", "dpo"]
    (result,) = data.eval_results
    assert (data.model_name, result.metric_type, result.metric_name) == (
        "dpo-1",
        "exec_acc",
        "execution accuracy (set)",
    )
    assert (result.metric_value, result.metric_args) == (62.5, {"confidence_interval_95": [55.63, 68.92]})
    assert (result.dataset_type, result.dataset_args) == ("bird-dev", {"questions": 200})


def test_what_was_not_measured_is_no_result(folder):
    card = write(folder, exec_acc=None)
    assert "model-index" not in card.data.to_dict() and "| execution accuracy |" not in card.text


# Whose words survive


def test_a_users_words_and_earlier_results_survive_three_rewrites(folder):
    path = folder / "README.md"
    front = {"license": "mit", "tags": "mine", "datasets": ["xlangai/spider"], "language": "de", "emblem": [1, 2]}
    path.write_text(f"---\n{yaml.safe_dump(front)}---\n# My own title\n\nBefore.\n")
    write(folder)
    path.write_text(path.read_text() + "\nAfter.\n")
    write_into_card(folder, "bird", "dev", row(0.6))
    for value in (0.625, 0.63, 0.64):
        card = write(folder, exec_acc={**RECORD["exec_acc"], "value": value, "low": value - 0.01})
    assert card.text.startswith("# My own title\n\nBefore.\n\n<!-- excot:begin -->")
    assert card.text.endswith("<!-- excot:end -->\n\nAfter.\n")
    assert card.text.count("# dpo-1") == 1
    data = card.data
    assert (data.license, data.language, data["emblem"]) == ("mit", "de", [1, 2])
    assert data.tags == ["mine", "text-to-sql", "excot", "trl", "dpo"]
    assert data.datasets == ["xlangai/spider", "team/bird-cot"]
    by_questions = [(result.dataset_name, result.metric_name, result.metric_value) for result in data.eval_results]
    assert len(by_questions) == 5
    assert by_questions[0] == ("BIRD dev", "execution accuracy (set)", 60.0)
    assert by_questions[-1] == ("held-out questions of bird-dev", "execution accuracy (set)", 64.0)
    assert data.eval_results[-1].metric_args == {"confidence_interval_95": [63.0, 68.92]}


def test_only_the_rule_that_decides_has_an_interval_and_it_is_replaced_with_its_value(folder):
    write(folder)
    for value in (0.6, 0.7):
        write_into_card(folder, "bird", "dev", row(value))
    measured, *results = ModelCard.load(folder / "README.md").data.eval_results
    assert measured.metric_value == 62.5 and [result.metric_value for result in results] == [70.0] * 4
    assert results[0].metric_args == {"confidence_interval_95": [67.5, 72.5]}
    assert [result.metric_args for result in results[1:]] == [None] * 3


def test_a_vote_has_an_interval_of_its_own(folder):
    sampled = {"exec_acc_vote": 0.66, "exec_acc_vote_low": 0.6, "exec_acc_vote_high": 0.7, "best_of_n": 0.8}
    write_into_card(folder, "bird", "dev", row(0.6, **sampled))
    found = {result.metric_name: result for result in ModelCard.load(folder / "README.md").data.eval_results}
    assert found["execution accuracy (set), majority vote"].metric_args == {"confidence_interval_95": [60.0, 70.0]}
    assert found["execution accuracy (set), best of n"].metric_args is None


def test_results_on_a_part_of_the_questions_are_not_taken_for_those_on_all(folder):
    write_into_card(folder, "bird", "dev", row(0.6))
    write_into_card(folder, "bird", "dev", row(0.9, questions=10))
    results = ModelCard.load(folder / "README.md").data.eval_results
    found = [(result.dataset_args["questions"], result.metric_value) for result in results]
    assert found == [(1534, 60.0)] * 4 + [(10, 90.0)] * 4


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\nmodel-index: 3\n---\n"])
def test_a_card_that_cannot_be_read_is_refused_before_training(folder, text):
    (folder / "README.md").write_text(text)
    with pytest.raises(ExcotError, match=r"the front matter of .*README.md"):
        Output.look(str(folder), RECORD, overwrite=True)
    assert (folder / "README.md").read_text() == text


# Adapters, folders, launchers


def test_an_adapter_is_said_to_be_one_and_loaded_as_one(folder):
    model = {**RECORD["model"], "adapter": {"r": 16, "alpha": 32, "dropout": 0.05}}
    card = write(folder, model=model)
    assert (card.data.library_name, card.data["base_model_relation"]) == ("peft", "adapter")
    assert card.data.base_model == model["name"]
    assert "| adapter | r 16, alpha 32, dropout 0.05 |" in card.text
    assert "AutoPeftModelForCausalLM.from_pretrained(" in card.text and "adapter_config.json" not in card.text


def test_of_what_lies_on_a_machine_the_card_says_no_more_than_the_name(folder):
    card = write(folder, **LOCAL)
    assert "somebody" not in (folder / "README.md").read_text()
    assert not {"base_model", "base_model_relation", "datasets"} & card.data.to_dict().keys()
    assert "| base model | sft (a folder) |" in card.text
    assert "| data | shop, config `pairs` |" in card.text and "held-out questions of shop-dev" in card.text
    assert card.data.eval_results[0].dataset_type == "shop-dev"
    adapter = {**LOCAL["model"], "adapter": {"from": "/home/somebody/models/lora"}}
    text = write(folder, **{**LOCAL, "model": adapter}).text
    assert "somebody" not in text and "| adapter | goes on from lora |" in text and "adapter_config.json" in text


@pytest.mark.parametrize(
    ("processes", "launched", "command"),
    [
        (1, ("cpu", 1, None), "accelerate launch --num_processes 1 recipes/dpo.py"),
        (1, ("cuda", 1, None), "accelerate launch --num_processes 1 recipes/dpo.py"),
        (2, ("cpu", 1, None), "torchrun --nproc_per_node 2 recipes/dpo.py"),
        (4, ("cuda", 1, None), "--config_file accelerate_configs/multi_gpu.yaml --num_processes 4 recipes/dpo.py"),
        (4, ("cuda", 1, "fsdp2"), "--config_file accelerate_configs/fsdp2.yaml --num_processes 4 recipes/dpo.py"),
        (4, ("cuda", 1, "fsdp1"), "accelerate launch --num_processes 4 recipes/dpo.py"),
        (
            16,
            ("cuda", 2, "zero3"),
            "--num_processes 16 --num_machines 2 --machine_rank RANK --main_process_ip ADDRESS recipes/dpo.py",
        ),
    ],
)
def test_the_command_launches_it_as_it_was(folder, processes, launched, command):
    device, machines, sharding = launched
    how = {"device": device, "machines": machines, "sharding": sharding}
    text = write(folder, world_size=processes, launched=how).text
    assert f"{command} \\\n    --config recipe.yaml --output_dir models/dpo-1\n" in text
    for config in re.findall(r"accelerate_configs/\w+\.yaml", text):
        assert Path(__file__).parents[1].joinpath(config).is_file()


# The prompt


@pytest.mark.parametrize("marks", ["", "`", "```sql\n1\n```", "~~~", "``````\n```", "</details>"])
def test_a_prompt_stands_in_the_card_whole_whatever_fences_it_has(folder, marks):
    prompt = f"{{{{ question }}}} {{% raw %}}\n{marks}{{% endraw %}}"
    text = write(folder, prompt=prompt).text
    (_, fold) = text.split("<summary>mine-1234abcd</summary>\n\n")
    opening, rest = fold.split("jinja\n", 1)
    assert set(opening) == {"`"} and len(opening) >= 3
    # The first line of nothing but at least as many backticks closes the block.
    inside = re.split(rf"^`{{{len(opening)},}}$", rest, maxsplit=1, flags=re.MULTILINE)[0]
    assert inside == prompt + "\n"


def test_a_prompt_that_is_not_at_hand_is_named_and_one_that_is_not_known_is_not(folder):
    text = write(folder, prompt=None).text
    assert "`mine-1234abcd`, whose text was not at hand" in text and "load_prompt" not in text
    text = write(folder, prompt=None, prompt_id=None).text
    assert "| prompt | not known |" in text and "Nothing says which prompt" in text
