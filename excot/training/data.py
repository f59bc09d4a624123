"""The rows to train on and those held out, with the columns that the trainer needs, and where they come from."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError, named
from ..execution import Databases
from ..prompts import Prompt, load_prompt
from .arguments import GrpoArguments, RecipeArguments
from .source import Source

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from trl import DatasetMixtureConfig

log = logging.getLogger("excot")

COLUMNS = {
    "sft": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
    "grpo": ("question", "db_id", "gold_sql", "schema", "evidence"),
}
CONFIGS = {"sft": "sft", "dpo": "pairs", "grpo": "questions"}
"""Which dataset of a run folder a recipe reads when it is not told."""


@dataclass(frozen=True)
class Data:
    """What a recipe trains on.

    Attributes:
        train: the rows to train on, with the columns of `COLUMNS` (for GRPO: ``prompt``, ``db_id``, ``gold_sql``).
        held_out: rows for the loss on unseen questions, or ``None``.
        origin: where the rows come from: one mapping a dataset, for the record and the model card.
        prompt: the prompt that the data was made with, or that GRPO's questions are rendered with; may be unknown.
        prompt_id: its id, known also where the prompt itself is not at hand.
        sources: the folders and repositories.
        databases: for GRPO, where the questions are executed; not known for a mere plan.
    """

    train: Dataset
    held_out: Dataset | None
    origin: list[dict[str, Any]]
    prompt: Prompt | None
    prompt_id: str | None
    sources: list[Source]
    databases: Databases | None = None


def load_data(stage: str, script_args: RecipeArguments, dataset_args: DatasetMixtureConfig, evaluates: bool) -> Data:
    """Load what ``--dataset_name`` or ``datasets`` names.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        script_args: the recipe's own options.
        dataset_args: TRL's mixture of datasets, of which ``test_split_size`` counts for a single dataset as well.
        evaluates: whether rows must be held out.

    Raises:
        ExcotError: no such data, no rows, columns missing, different prompts, or nothing to hold out.
    """
    if script_args.dataset_streaming or dataset_args.streaming:
        raise ExcotError("a recipe does not stream its data", "it must count tokens first: leave streaming out")
    if dataset_args.datasets:
        rows, sources, configs = _mixture(dataset_args)
    else:
        source = Source.open(script_args.dataset_name or "", script_args.dataset_revision)
        config = script_args.dataset_config or (CONFIGS[stage] if source.manifest["stages"] else None)
        rows, sources, configs = source.load(config), [source], [config]

    named = ", ".join(str(source) for source in sources)
    if script_args.dataset_train_split not in rows:
        raise ExcotError(
            f"{named} has no split {script_args.dataset_train_split!r}", f"--dataset_train_split {' or '.join(rows)}"
        )
    for split in rows.values():
        _check_columns(split, stage, named)
    prompt, prompt_id = _prompt(stage, script_args, list(zip(sources, configs, strict=True)))
    train, held_out = _held_out(rows, script_args, dataset_args, evaluates, named)
    databases = _databases(script_args, sources) if stage == "grpo" else None
    if stage == "grpo":
        train, held_out = (
            _rendered(part, prompt, databases) if part is not None else None for part in (train, held_out)
        )
    origin = [
        {
            "name": source.name,
            "local": source.folder is not None,
            "config": config,
            "revision": source.revision,
            "commit": source.commit,
            "fingerprint": source.fingerprint(config) or (train._fingerprint if source.folder else None),
        }
        for source, config in zip(sources, configs, strict=True)
    ]
    return Data(train, held_out, origin, prompt, prompt_id, sources, databases)


def is_held_out(key: str, share: float) -> bool:
    """Whether a question belongs to those held out.

    It depends on the question's id alone, so that what SFT did not see is not trained on by DPO or a later round.

    Args:
        key: the question's id.
        share: the part of all questions to hold out, between 0 and 1.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


def _mixture(dataset_args: DatasetMixtureConfig) -> tuple[DatasetDict, list[Source], list[str | None]]:
    from trl import get_dataset

    sources = [Source.open(part.path) for part in dataset_args.datasets]
    share, dataset_args.test_split_size = dataset_args.test_split_size, None  # questions are held out by id, below
    try:
        rows = get_dataset(dataset_args)
    except Exception as error:
        raise ExcotError(f"cannot load the mixture of datasets ({error})", "check `datasets`") from error
    dataset_args.test_split_size = share
    return rows, sources, [part.name for part in dataset_args.datasets]


def _check_columns(rows: Dataset, stage: str, named: str) -> None:
    missing = [column for column in COLUMNS[stage] if column not in rows.column_names]
    if missing:
        raise ExcotError(
            f"{named} has no column {', '.join(missing)} (it has {', '.join(rows.column_names)})",
            f"{stage} trains on --dataset_config {CONFIGS[stage]}",
        )
    if stage != "grpo" and not isinstance(rows[0]["prompt"], list):
        raise ExcotError(
            f"the prompts of {named} are plain text", "give chat messages: lists of {role, content}, as excot makes"
        )


def _prompt(
    stage: str, script_args: RecipeArguments, parts: list[tuple[Source, str | None]]
) -> tuple[Prompt | None, str | None]:
    ids = {source.prompt_id(config) for source, config in parts} - {None}
    if len(ids) > 1:
        raise ExcotError(
            f"the data was made with different prompts: {', '.join(sorted(map(str, ids)))}",
            "train one model under one prompt",
        )
    given = load_prompt(script_args.prompt) if script_args.prompt else None
    if given is None:
        prompt = next((source.prompt(config) for source, config in parts if source.prompt_id(config)), None)
        if prompt is None and stage == "grpo":
            prompt = load_prompt("divide_and_conquer")
        return prompt, prompt.id if prompt else next(iter(ids), None)
    if ids and given.id not in ids:
        raise ExcotError(
            f"--prompt {script_args.prompt} is {given.id}, but the data was made with {ids.pop()}",
            "leave --prompt out",
        )
    return given, given.id


def _held_out(
    rows: DatasetDict, script_args: RecipeArguments, dataset_args: DatasetMixtureConfig, evaluates: bool, named: str
) -> tuple[Dataset, Dataset | None]:
    train = rows[script_args.dataset_train_split]
    test = rows.get(script_args.dataset_test_split) if evaluates else None
    share = dataset_args.test_split_size
    if test is not None:
        return train, test
    if share:
        keys = train["id"] if "id" in train.column_names else map(json.dumps, train["prompt"])
        out = [is_held_out(key, share) for key in keys]
        test = train.select([place for place, flag in enumerate(out) if flag])
        train = train.select([place for place, flag in enumerate(out) if not flag])
    if not len(train) or (evaluates and not test):
        raise ExcotError(
            f"{named} has {len(train):,} rows to train on and {len(test) if test else 0} held out for evaluation",
            "give a --test_split_size, such as 0.02, or --eval_strategy no",
        )
    return train, test if evaluates else None


def _databases(script_args: GrpoArguments, sources: list[Source]) -> Databases | None:
    """Where GRPO's questions are executed; ``None`` where nothing is, and nobody knows."""
    executes = "execution_reward" in (script_args.reward_funcs or ["execution_reward"])
    if executes and len(sources) > 1 and not script_args.databases:
        raise ExcotError(
            f"the questions come from {len(sources)} datasets, whose databases may be anywhere",
            "put the databases into one folder and give it to --databases",
        )
    try:
        return Databases(sources[0].databases(script_args.databases, "databases"))
    except ExcotError:
        if executes and not script_args.plan:
            raise
        return None


def _rendered(rows: Dataset, prompt: Prompt, databases: Databases | None) -> Dataset:
    """Questions as GRPO wants them. Those without a database or with a gold known to be unusable are left out."""
    if "gold" in rows.column_names:
        usable = [place for place, gold in enumerate(rows["gold"]) if gold["status"] == "ok"]
        rows = rows.select(usable)
    if databases is not None:
        absent = {db_id for db_id in set(rows["db_id"]) if not databases.find(db_id)}
        kept = [place for place, db_id in enumerate(rows["db_id"]) if db_id not in absent]
        if not kept:
            raise ExcotError(f"no question has a database in {databases.folder}", "check --databases")
        if absent:
            log.warning("%d questions have no database file: %s", len(rows) - len(kept), named(sorted(absent)))
            rows = rows.select(kept)
    return rows.map(
        lambda row: {"prompt": prompt.messages(row["question"], row["schema"] or "", row["evidence"])},
        remove_columns=[name for name in rows.column_names if name not in ("id", "db_id", "gold_sql")],
        desc="Rendering prompts",
    )
