"""A loop so small that all of it takes a minute or two: a benchmark, a file of answers, and a student."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from chain import make_databases
from command import ROOT

from excot.prompts import load_prompt

_ANSWERS = {  # by database: what is right, and what is not
    "shop": ("SELECT name FROM item", "SELECT price FROM item"),
    "zoo": ("SELECT count(*) FROM animal", "SELECT name FROM animal"),
}
_TINY = {"save_steps": 1, "save_total_limit": 3, "gradient_accumulation_steps": 1, "logging_steps": 1}
_SAMPLED = {"backend": "transformers", "max_tokens": 32, "device": "cpu", "batch_size": 8}


@dataclass(frozen=True)
class Place:
    """Where loops of the tests find what they need: ``data/``, ``answers.jsonl`` and ``student/``."""

    folder: Path

    def settings(self, out: Path | str, **changes: Any) -> dict[str, Any]:
        """What a loop's file says; a change to a part that is a mapping is laid over it."""
        recipes, cpu = ROOT / "recipes" / "tiny-llama", str(ROOT / "accelerate_configs" / "cpu.yaml")
        data = {"benchmark": "folder", "data": str(self.folder / "data")}
        settings: dict[str, Any] = {
            "out": str(out),
            "train": {**data, "split": "train"},
            "dev": {**data, "split": "dev"},
            "teacher": {"backend": "replay", "from": str(self.folder / "answers.jsonl"), "prompt": "direct"},
            "verify": {"processes": 1},
            "student": str(self.folder / "student"),
            "sft": {
                "recipe": str(recipes / "sft.yaml"),
                "accelerate_config": cpu,
                "data": {"choose": "all"},
                "training": {**_TINY, "max_steps": 4, "learning_rate": 5e-4},
            },
            "offpolicy": {
                "recipe": str(recipes / "dpo_offpolicy.yaml"),
                "accelerate_config": cpu,
                "training": {**_TINY, "max_steps": 2},
            },
            "onpolicy": {
                "recipe": str(recipes / "dpo_onpolicy.yaml"),
                "accelerate_config": cpu,
                "training": {**_TINY, "max_steps": 2},
                "sampling": {**_SAMPLED, "n": 4},
            },
            "score": {**_SAMPLED, "processes": 1},
            "rounds": 1,
        }
        return laid_over(settings, changes)

    def file(self, run: Path, **changes: Any) -> str:
        """The file, beside the run folder."""
        path = run.with_suffix(".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.settings(**{"out": run, **changes}), sort_keys=False), "utf-8")
        return str(path)


def laid_over(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes; ``None`` takes a name away."""
    laid = dict(settings)
    for name, value in changes.items():
        old = laid.get(name)
        laid[name] = laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        if value is None:
            del laid[name]
    return laid


def make_place(folder: Path) -> Place:
    """Make the benchmark, the answers, and a student that gives right answers and wrong ones about equally often."""
    data = folder / "data"
    make_databases(data / "database")
    for split, first in (("train", 0), ("dev", 10)):
        with open(data / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in _questions(first))
    with open(folder / "answers.jsonl", "w", encoding="utf-8") as file:
        for k, row in enumerate(_questions(0)):
            candidates = [_said(sql, k) for sql in _ANSWERS[row["db_id"]] for k in range(2)]
            file.write(json.dumps({"question_id": k, "candidates": candidates}) + "\n")
    _make_student(folder / "student", data)
    return Place(folder)


def _questions(first: int, count: int = 10) -> Iterator[dict[str, str]]:
    for k in range(first, first + count):
        db_id = ("shop", "zoo")[k % 2]
        yield {"question": f"Tell me number {k}", "db_id": db_id, "gold_sql": _ANSWERS[db_id][0]}


def _said(sql: str, k: int) -> str:
    return f"{('So', 'Well')[k]}:\n```sql\n{sql}\n```"


def _make_student(folder: Path, data: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from excot.builders.questions import open_benchmark
    from excot.demo.model import make_llama

    prompt = load_prompt("direct")
    talks = []
    for row in open_benchmark("folder", str(data)).questions("train"):
        messages = prompt.messages(row["question"], row["schema"], None)
        talks += [(messages, _said(sql, k)) for sql in _ANSWERS[row["db_id"]] for k in range(2)]
    texts = [message["content"] for messages, _ in talks for message in messages] + [answer for _, answer in talks]
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    make_llama(folder, texts, vocab_size=400, **small)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    rows = []
    for messages, answer in talks:
        start = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        rows.append((start, tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]))
    length = max(len(start) + len(end) for start, end in rows)
    padded = [start + end + [tokenizer.pad_token_id] * (length - len(start) - len(end)) for start, end in rows]
    labels = [[-100] * len(start) + end + [-100] * (length - len(start) - len(end)) for start, end in rows]
    ids, labels = torch.tensor(padded), torch.tensor(labels)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        batch = torch.randperm(len(rows))[:8]
        loss = model(input_ids=ids[batch], labels=labels[batch]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
