"""The card of a trained model: what it was made from and how, so that somebody else can judge it and make it again."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from .card import read_card, render_card, save_card
from .results import put_measured

# What a reader wants to know of the settings; all of them stand in training.json.
_SHOWN = (
    "learning_rate lr_scheduler_type warmup_steps num_train_epochs max_steps global_batch max_length "
    "max_completion_length num_generations temperature beta loss_type loss_weights weight_decay optim bf16 fp16 seed"
).split()
_SHARDINGS = {"zero": "DeepSpeed ZeRO-{}", "fsdp": "FSDP, version {}"}
_CONFIGS = ("zero2", "zero3", "fsdp2")
"""Files of accelerate_configs/ that split the weights."""


def write_model_card(path: Path, name: str, record: dict[str, Any], existing: Path) -> None:
    """Write the card of a model; a user's own words in an existing one are kept, and so are its results.

    Args:
        path: where to write it, beside ``prompt.jinja`` where the prompt's text is known.
        name: the model's name.
        record: its ``training.json``.
        existing: the card that was there before, if any.
    """
    if existing != path and existing.is_file():
        shutil.copyfile(existing, path)
    front, body = read_card(path)
    model, measured = record["model"], record["exec_acc"]
    front.setdefault("language", ["en"])
    front.setdefault("pipeline_tag", "text-generation")
    front["library_name"] = "peft" if model["adapter"] else "transformers"
    front["tags"] = _union(front.get("tags"), ["text-to-sql", "excot", "trl", record["stage"]])
    if not model["local"]:  # the Hub refuses a base model or a dataset that cannot be one of its own
        front["base_model"] = model["name"]
        front["base_model_relation"] = "adapter" if model["adapter"] else "finetune"
    if datasets := [data["name"] for data in record["data"] if not data["local"]]:
        front["datasets"] = _union(front.get("datasets"), datasets)
    if measured:
        put_measured(front, name, measured, _shown(measured["dataset"], measured["local"]))
    template = path.with_name("prompt.jinja")
    prompt = template.read_text("utf-8").strip("\n") if template.is_file() else None
    generated = render_card(
        "model_card.md.jinja",
        name=name,
        record=record,
        shown=_shown,
        settings={key: record["settings"][key] for key in _SHOWN if record["settings"].get(key) is not None},
        sharding=_sharding(record["launched"]["sharding"]),
        launcher=_launcher(record["world_size"], **record["launched"]),
        prompt=prompt,
        fence=_fence(prompt or ""),
    )
    save_card(path, front, body, generated)


def _shown(name: str, local: bool) -> str:
    """A name as others may read it: of a folder, not where it lies on the machine."""
    return os.path.basename(os.path.abspath(os.path.expanduser(name))) if local else name


def _union(known: str | list[str] | None, ours: list[str]) -> list[str]:
    """What the user has named, and what belongs there by our side."""
    return list(dict.fromkeys([*([known] if isinstance(known, str) else known or []), *ours]))


def _sharding(name: str | None) -> str | None:
    """``zero3`` in words."""
    return _SHARDINGS[name[:4]].format(name[4:]) if name else None


def _launcher(processes: int, device: str, machines: int, sharding: str | None) -> str:
    """What starts the recipe's script on as many processes again."""
    if processes > 1 and device == "cpu" and not sharding:  # accelerate would start only one
        return f"torchrun --nproc_per_node {processes}"
    config = sharding if sharding in _CONFIGS else "multi_gpu" if processes > 1 and not sharding else None
    words = ["accelerate launch"]
    if config:
        words.append(f"--config_file accelerate_configs/{config}.yaml")
    words.append(f"--num_processes {processes}")
    if machines > 1:
        words.append(f"--num_machines {machines} --machine_rank RANK --main_process_ip ADDRESS")
    return " ".join(words)


def _fence(text: str) -> str:
    """A code fence that no run of backticks in the text can close."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
