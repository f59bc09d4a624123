"""The recipes beside TRL's own scripts: the same steps on the same data, by turns, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
STEPS = {"sft": 16, "dpo": 8}
CONFIGS = {"sft": "sft", "dpo": "pairs"}


def run() -> list[dict[str, Any]]:
    """Seconds a step, of TRL's script and of ours; the fastest round of each; the ratio is TRL's time to ours."""
    results = []
    with TemporaryDirectory() as folder:
        recipe = _make(Path(folder))
        for stage, steps in STEPS.items():
            options = [*recipe, "--dataset_config", CONFIGS[stage], "--max_steps", str(steps)]
            theirs, ours = [], []
            for turn in range(ROUNDS):
                scripts = [
                    (theirs, ["-m", f"trl.scripts.{stage}"]),
                    (ours, [str(ROOT / "excot" / "recipes" / f"{stage}.py")]),
                ]
                for seconds, script in scripts if turn % 2 else reversed(scripts):  # neither is always the first
                    out = ["--output_dir", f"{folder}/{stage}-{turn}-{len(script)}"]
                    seconds.append(_seconds_a_step([*script, *options, *out]))
            ratio = min(theirs) / min(ours)  # the least disturbed of each
            spread = ", ".join(f"{their / our:.3f}" for their, our in zip(theirs, ours, strict=True))
            results += [
                {
                    "what": f"{stage}: a step of TRL's own script",
                    "seconds": min(theirs),
                    "ratio": 1.0,
                    "note": f"4.3M parameter Llama, {steps} steps, {ROUNDS} rounds",
                },
                {
                    "what": f"{stage}: a step of our recipe",
                    "seconds": min(ours),
                    "ratio": ratio,
                    "note": f"by rounds: {spread}",
                },
            ]
    return results


def _make(folder: Path) -> list[str]:
    """Data and a model to train; the options that both scripts get."""
    from excot.builders.generations import generate
    from excot.builders.pairs import make_pairs
    from excot.builders.questions import make_questions
    from excot.builders.sft import make_sft
    from excot.builders.verified import verify
    from excot.config import GenerateConfig, PairsConfig, QuestionsConfig, SftConfig, VerifyConfig
    from excot.demo.data import make_data
    from excot.demo.model import make_llama, texts_of
    from excot.run import Run

    out = str(folder / "run")
    make_questions(QuestionsConfig(benchmark="folder", data=str(make_data(folder / "data", 0)), out=out))
    generate(GenerateConfig(backend="teacher", n=6, error_rate=0.5, out=out))
    verify(VerifyConfig(out=out))
    make_sft(SftConfig(out=out))
    make_pairs(PairsConfig(out=out))
    model = make_llama(folder / "model", texts_of(Run(out)))
    settings = {
        "model_name_or_path": model,
        "dataset_name": out,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "per_device_train_batch_size": 2,
        "max_length": 2048,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def _seconds_a_step(command: list[str]) -> float:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=True)
    (runtime,) = re.findall(r"'train_runtime': '([^']*)'", done.stdout)
    return float(runtime) / int(command[command.index("--max_steps") + 1])
