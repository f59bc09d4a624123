"""The options that the recipes have beside TRL's own; importing them does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

try:
    from trl.scripts.grpo import GRPOScriptArguments as TrlGrpoArguments
    from trl.scripts.utils import ScriptArguments as TrlArguments
except ImportError:
    from ..errors import import_error

    raise import_error("trl", "train") from None


def _option(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    metadata: dict[str, Any] = {"help": help}
    if choices:
        metadata["choices"] = list(choices)
    return field(default=default, metadata=metadata)


_RULES = ("set", "multiset", "ordered", "test_suite")


@dataclass
class RecipeArguments(TrlArguments):
    """What every recipe understands beside the options of TRL's own script."""

    dataset_revision: str | None = _option(None, "Tag, branch or commit of the dataset repository, such as v1.")
    prompt: str | None = _option(
        None,
        "Prompt style or the path of a Jinja template, for questions that are rendered here; by default the one that "
        "the data was made with.",
    )
    allow_drops: bool = _option(False, "Train although more than 5 percent of the rows are over max_length.")
    overwrite: bool = _option(False, "Train anew although the output folder holds a finished model or another run.")
    plan: bool = _option(False, "Say what would run (rows, tokens, steps, global batch, memory), and train nothing.")
    plan_gpus: int = _option(1, "How many GPUs (processes) --plan reckons with when it is not launched on them.")
    ex_dataset: str | None = _option(
        None,
        "Run folder or dataset repository with held-out questions: at every evaluation (eval_steps) they are answered "
        "greedily and executed. Logged as eval_exec_acc with its 95 percent interval; metric_for_best_model may name "
        "it.",
    )
    ex_databases: str | None = _option(None, "Databases of those questions, if not where their run folder found them.")
    ex_questions: int = _option(200, "How many of them, spread evenly over the dataset.")
    ex_max_new_tokens: int = _option(1024, "New tokens of one answer at most.")
    ex_batch_size: int = _option(16, "Answers that one process generates together.")
    ex_rule: str = _option("set", "The comparator that says which answers are right.", _RULES)
    ex_timeout: float = _option(30.0, "Seconds that one statement may take.")


@dataclass
class GrpoArguments(RecipeArguments, TrlGrpoArguments):
    """What the GRPO recipe understands beside the options of TRL's own script."""

    databases: str | None = _option(None, "The databases folder, if not where the run folder found it.")
    reward_right: float = _option(1.0, "Reward of an answer with the gold's result.")
    reward_executes: float = _option(0.1, "Reward of an answer that executes and is wrong.")
    reward_wrong: float = _option(0.0, "Reward of every other answer.")
    reward_rule: str = _option("set", "The comparator that says which answers are right.", _RULES)
    reward_timeout: float = _option(5.0, "Seconds that one statement may take.")
    reward_processes: int | None = _option(None, "Worker processes of each rank; its share of the cores by default.")
