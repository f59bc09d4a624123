"""Recipes for tests: a run folder and a tiny Llama to train, and the scripts, called here or by a launcher."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import ROOT, Finished, log_restored

from excot.builders.pairs import make_pairs
from excot.builders.sft import make_sft
from excot.builders.verified import verify
from excot.config import GenerateConfig, PairsConfig, QuestionsConfig, SftConfig, VerifyConfig
from excot.demo.data import make_data
from excot.demo.model import make_llama, texts_of
from excot.run import Run

CPU = {
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "learning_rate": 1e-3,
    "max_length": 1536,
    "per_device_train_batch_size": 2,
    "max_steps": 3,
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 3,
}

SIZES = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4}
"""Of the model that is trained: with a vocabulary of 4,096 it has 0.9M parameters."""

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="DeepSpeed builds an extension with c++")


@dataclass(frozen=True)
class World:
    """Something to train on: a run folder with every dataset, and a random Llama with a tokenizer for it.

    ``nano`` is a model of one narrow layer, for tests in which nothing depends on what is learned.
    """

    folder: Path
    run: str
    model: str
    nano: str

    def recipe(self, **options: Any) -> list[str]:
        """The words of a recipe for this world on a CPU; an option that is ``None`` is left out."""
        settings = {"model_name_or_path": self.model, "dataset_name": self.run, **CPU, **options}
        return words(settings)


def words(settings: dict[str, Any]) -> list[str]:
    """Settings as a command line."""
    flags: list[str] = []
    for name, value in settings.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            flags += [f"--{name}", *map(str, values)]
    return flags


def make_world(folder: Path, *, prompt: str = "direct", model: dict[str, Any] | None = None, **data: Any) -> World:
    """Make the demo's databases and questions, a teacher's answers, SFT rows and pairs, and a model."""
    from excot.builders.generations import generate
    from excot.builders.questions import make_questions

    out = str(folder / "run")
    make_questions(QuestionsConfig(benchmark="folder", data=str(make_data(folder / "data", 0)), out=out))
    generate(GenerateConfig(backend="teacher", n=data.get("n", 6), error_rate=0.5, prompt=prompt, out=out))
    verify(VerifyConfig(out=out))
    each = data.get("max_per_question", 1)
    make_sft(SftConfig(choose="all", max_per_question=each, out=out))
    make_pairs(PairsConfig(max_per_question=each, out=out))
    texts = list(texts_of(Run(out)))
    narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    nano = make_llama(folder / "nano", texts, **narrow)
    return World(folder, out, make_llama(folder / "model", texts, **(model or SIZES)), nano)


def train(stage: str, options: Iterable[str]) -> Finished:
    """Run a recipe in this process."""
    from excot.training.script import run

    recipe = import_module(f"excot.recipes.{stage}")
    out, err = StringIO(), StringIO()
    with log_restored(), redirect_stdout(out), redirect_stderr(err):
        code = run(stage, recipe.make_parser, recipe.main, list(options))
    return Finished(code, out.getvalue(), err.getvalue())


def launch(stage: str, options: Iterable[str], launcher: Sequence[str] = ()) -> Finished:
    """Run a recipe's script by its path, under a launcher or alone, and wait for it."""
    command = [sys.executable, *launcher, str(ROOT / "recipes" / f"{stage}.py"), *options]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=ROOT, timeout=280)
    return Finished(done.returncode, done.stdout, done.stderr)


def start(stage: str, options: Iterable[str], launcher: Sequence[str] = (), **settings: Any) -> subprocess.Popen[str]:
    """Start a recipe's script, to be killed."""
    command = [sys.executable, *launcher, str(ROOT / "recipes" / f"{stage}.py"), *options]
    return subprocess.Popen(
        command,
        env=environment(),
        cwd=ROOT,
        text=True,
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **settings},
    )


def torchrun(processes: int) -> list[str]:
    """The launcher that really runs several processes on a CPU."""
    return ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]


def accelerate(folder: Path, config: str, **changes: Any) -> list[str]:
    """``accelerate launch`` with one of our configs, brought down to two processes on this CPU."""
    settings = yaml.safe_load((ROOT / "accelerate_configs" / f"{config}.yaml").read_text())
    settings |= {"num_processes": 2, "use_cpu": True, "mixed_precision": "no", **changes}
    path = folder / f"{config}.yaml"
    path.write_text(yaml.safe_dump(settings))
    port = str(free_port())
    return ["-m", "accelerate.commands.launch", "--config_file", str(path), "--main_process_port", port]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
