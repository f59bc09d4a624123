"""The card of a trained model: what it was made from and how, so that somebody else can judge it and make it again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from .card import read_card, render_card, save_card

# What a reader wants to know of the settings; all of them stand in training.json.
_SHOWN = (
    "learning_rate lr_scheduler_type warmup_steps num_train_epochs max_steps global_batch max_length "
    "max_completion_length num_generations temperature beta loss_type loss_weights weight_decay optim bf16 fp16 seed"
).split()


def write_model_card(path: Path, name: str, record: dict[str, Any], existing: Path) -> None:
    """Write the card of a model; a user's own words in an existing one are kept.

    Args:
        path: where to write it.
        name: the model's name.
        record: its ``training.json``.
        existing: the card that was there before, if any.
    """
    if existing != path and existing.is_file():
        shutil.copyfile(existing, path)
    front, body = read_card(path)
    model = record["model"]
    front.setdefault("language", ["en"])
    front.setdefault("pipeline_tag", "text-generation")
    front["library_name"] = "peft" if model["adapter"] else "transformers"
    front["tags"] = list(dict.fromkeys([*front.get("tags", []), "text-to-sql", "excot", "trl", record["stage"]]))
    if not model["local"]:  # the Hub refuses a base model or a dataset that cannot be one of its own
        front["base_model"] = model["name"]
        front["base_model_relation"] = "adapter" if model["adapter"] else "finetune"
    datasets = [data["name"] for data in record["data"] if not data["local"]]
    if datasets:
        front["datasets"] = datasets
    settings = {key: record["settings"][key] for key in _SHOWN if record["settings"].get(key) is not None}
    save_card(path, front, body, render_card("model_card.md.jinja", name=name, record=record, settings=settings))
