"""The method with a tiny model, and beside it a control: what does preference training add to more of the same?

The loop is the one of ``excot run``, with the recipes of tiny-llama. docs/experiment.md says how its settings were
found, on a split of their own, and what it shows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .. import recipes
from ..atomic import replace_text
from ..config import DemoConfig, RunConfig
from ..errors import ExcotError
from ..llm.teacher import Teacher
from ..loop.settings import Settings, check_installed, read_settings
from ..loop.state import State, alone
from ..loop.steps import Model, Step, score_step, train_step
from ..recipes.loop import Loop, run_loop
from .data import make_splits
from .outcome import cpu_seconds, outcome

SIZES = {"train": 1800, "dev": 300, "test": 300}
"""Questions of each split. The settings below were chosen by dev; what the demo shows is of test."""

INSTANCES = 5
"""Files of each database. Labels see the first one, scores see all, as Spider's test suite does."""

QUICK = {"train": 90, "dev": 20, "test": 20}

_RECIPES = Path(recipes.__file__).parent / "tiny-llama"
_CPU = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "use_cpu": True, "num_processes": 1}


def experiment(config: DemoConfig) -> str:
    """Make a world and a model, run the loop, train the control, and sum up. Killed and started again, it goes on.

    Raises:
        ExcotError: the folder holds another run, or what trains is not installed.
    """
    out, private = Path(config.out), Path(config.out) / ".excot" / "demo"
    check_installed("torch", "transformers", "trl", "accelerate")
    _check_place(out, private, config)
    path = _prepare(out, private, config)
    print(run_loop(RunConfig(loop=str(path))).rpartition("\nnext: ")[0], flush=True)
    settings = read_settings(str(path))
    with alone(settings.out):
        state = State(settings.out)
        steps = _control(settings, state)
        loop = Loop(settings, steps, state)
        print(
            "\nthe control: from sft, as many CPU seconds as preference training took, on more of the same", flush=True
        )
        for step in steps:
            print(step.title, flush=True)
            loop.do(step)
    text = outcome(settings, state, config)
    replace_text(out / "demo.md", text)
    return f"\n{text}\nAll of it is in {out}; this summary in {out / 'demo.md'}."


def _check_place(out: Path, private: Path, config: DemoConfig) -> None:
    """Refuse a folder that holds another run, or this one with other options."""
    asked = f"seed {config.seed}{', quick' if config.quick else ''}\n"
    note = private / "asked.txt"
    if (out / "manifest.json").exists() and not note.is_file():
        raise ExcotError(f"{out} holds a run that is not the demo's", "give another --out")
    if note.is_file() and note.read_text("utf-8") != asked:
        raise ExcotError(f"{out} holds the demo of {note.read_text('utf-8').strip()}", "give another --out")
    private.mkdir(parents=True, exist_ok=True)
    replace_text(note, asked)


def _prepare(out: Path, private: Path, config: DemoConfig) -> Path:
    """Make what the loop begins with, as far as it is not there: data, prompt, student, and the loop's file."""
    path = out / "loop.yaml"
    if path.is_file():
        return path
    data = make_splits(private / "data", config.seed, QUICK if config.quick else SIZES, INSTANCES)
    (private / "question.jinja").write_text("{{ question }}\n", "utf-8")
    (private / "cpu.yaml").write_text(yaml.safe_dump(_CPU), "utf-8")
    student = out / "models" / "base"
    if not student.is_dir():
        _make_student(private / "base", data, config.seed)
        student.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(private / "base", student)
    replace_text(path, yaml.safe_dump(_loop(out, private, config), sort_keys=False))  # last: it says that all is there
    return path


def _make_student(folder: Path, data: Path, seed: int) -> None:
    """A random Llama of a million parameters, and a tokenizer for questions and answers of this kind."""
    from .model import make_llama

    shutil.rmtree(folder, ignore_errors=True)
    size = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    make_llama(folder, _texts(data, seed), seed=seed, vocab_size=768, max_position_embeddings=256, **size)


def _texts(data: Path, seed: int) -> Iterator[str]:
    from ..builders.questions import open_benchmark

    teacher = Teacher(error_rate=0, brief=True)
    for row in open_benchmark("folder", str(data)).questions("train"):
        yield row["question"]
        yield teacher.plan(row, 1, seed)[0].text


def _loop(out: Path, private: Path, config: DemoConfig) -> dict[str, Any]:
    """The loop's file."""
    seed, quick = config.seed, config.quick
    data = {"benchmark": "folder", "data": str(private / "data")}
    answers = {"backend": "transformers", "max_tokens": 100, "batch_size": 128, "concurrency": 128, "device": "cpu"}
    common = {
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "max_length": 256,
        "logging_steps": 5 if quick else 20,
        "save_steps": 100,
        "seed": seed,
    }
    preferring = {**common, "learning_rate": 1e-4, "loss_weights": [1.0, 0.5], "num_train_epochs": 2}
    if quick:
        preferring["max_steps"] = 4
    cpu = str(private / "cpu.yaml")
    return {
        "out": str(out),
        "train": {**data, "split": "train"},
        "dev": {**data, "split": "test"},  # nothing is chosen by it: the settings here are fixed
        "teacher": {
            "backend": "teacher",
            "brief": True,
            "n": 8,
            "error_rate": 0.02,
            "habit_rate": 0.9,
            "seed": seed,
            "prompt": str(private / "question.jinja"),
        },
        "student": str(out / "models" / "base"),
        "sft": {
            "recipe": str(_RECIPES / "sft.yaml"),
            "accelerate_config": cpu,
            "training": {**common, "max_steps": 8 if quick else 400, "learning_rate": 6e-3, "warmup_steps": 0.03},
        },
        "offpolicy": {
            "recipe": str(_RECIPES / "dpo_offpolicy.yaml"),
            "accelerate_config": cpu,
            "data": {"strategy": "nearest"},
            "training": preferring,
        },
        "onpolicy": {
            "recipe": str(_RECIPES / "dpo_onpolicy.yaml"),
            "accelerate_config": cpu,
            "training": preferring,
            "sampling": {**answers, "n": 4, "limit": 20 if quick else 600, "seed": seed},
        },
        "score": {**answers, "rule": "test_suite"},
        "rounds": 1,
        "stop_early": False,
    }


def _control(settings: Settings, state: State) -> list[Step]:
    """SFT that goes on from the SFT model for the CPU time that preference training took, and its score."""
    sft = Model("sft", os.path.join(settings.out, "models", "sft"))
    control = Model("control", os.path.join(settings.out, "models", "control"))
    taken = state.steps["sft"]["cpu_seconds"]
    steps = settings.sft.options["max_steps"]
    preferring = cpu_seconds("dpo", state) + cpu_seconds("dpo_round1", state)
    more = max(1, round(steps * preferring / taken)) if taken else steps
    options = {**settings.sft.options, "max_steps": more, "learning_rate": 1e-3}
    return [
        train_step(settings, replace(settings.sft, options=options), sft, control, 0),
        score_step(settings, control, 0),
    ]
