"""The answers to be scored: a file of predictions, the run folder's generations, or those of a model asked first."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..builders.exclusion import Exclusion, read_exclusion
from ..builders.verified import Files, find_files
from ..config import GenerateConfig, ScoreConfig
from ..errors import ExcotError
from ..execution import file_hash
from ..models import trained_prompt
from ..prompts import STYLES, extract_sql, load_prompt
from ..run import Run
from .predictions import FORMATS, read_predictions
from .scoring import Prediction

log = logging.getLogger("excot")

_COLUMNS = ["id", "db_id", "question", "difficulty", "gold_sql"]
_SAMPLING = ("n", "temperature", "top_p", "max_tokens", "seed", "few_shots")


@dataclass
class Answers:
    """One system's answers to questions whose database is there.

    Attributes:
        system: the system's name.
        source: where they are from, in words.
        questions: the questions' rows.
        predictions: one for each question.
        databases: the questions' databases.
        arguments: the options that they depend on.
        inputs: digests of what else they depend on.
        facts: what else is worth keeping of them: model, prompt, how many questions were left out, ...
        cut_off: by question, the places of the samples that were cut off before their SQL was complete.
    """

    system: str
    source: str
    questions: list[dict[str, Any]]
    predictions: list[Prediction]
    databases: Files
    arguments: dict[str, Any]
    inputs: dict[str, str]
    facts: dict[str, Any]
    cut_off: dict[str, set[int]] = field(default_factory=dict)


def find_answers(run: Run, config: ScoreConfig) -> Answers:
    """The answers that the options name; a model is asked first, into the run folder's ``generations``.

    Raises:
        ExcotError: there are none, they do not fit the questions, the databases are not there, or all questions are
            to be left out.
    """
    exclusion = read_exclusion(config.exclude, run)
    if config.predictions:
        answers = _from_file(run, config, Path(config.predictions), exclusion)
    else:
        files = _ask(run, config, config.model) if config.model else None
        answers = _from_generations(Run(config.out), config, files, exclusion)
    answers.arguments |= exclusion.arguments()
    return answers


def generation_options(config: ScoreConfig, model: str) -> GenerateConfig:
    """How the model is asked: under its own prompt unless the user names another."""
    names = (
        "out limit dry_run overwrite resume backend n temperature top_p max_tokens seed base_url concurrency "
        "batch_size device adapter tensor_parallel_size data_parallel_size max_model_len"
    )
    same = {name: getattr(config, name) for name in names.split()}
    return GenerateConfig(model=model, prompt=config.prompt or _own_prompt(config.adapter or model), **same)


def _ask(run: Run, config: ScoreConfig, model: str) -> Files:
    from ..builders.generations import generate

    # What would make the answers useless is found before hours and money are spent on them.
    files = _find_files(run, config, list(islice(run.read("questions", ["db_id"]), config.limit)))
    options = generation_options(config, model)
    _warn_of_prompt(options.adapter or model, load_prompt(options.prompt).id)
    log.info(generate(options).splitlines()[0])
    return files


def _from_file(run: Run, config: ScoreConfig, path: Path, exclusion: Exclusion) -> Answers:
    questions = list(run.read("questions", _COLUMNS))
    format, found = read_predictions(path, questions, config.format)
    files = _find_files(run, config, questions[: config.limit])
    questions = [question for question in questions[: config.limit] if files.paths[question["db_id"]]]
    questions, left_out = _select(questions, exclusion, config)
    missing = [question["id"] for question in questions if question["id"] not in found]
    if missing:
        counts = (
            f"{path} has {len(questions) - len(missing):,} predictions for {len(questions):,} questions: "
            f"{len(missing):,} have none, first {missing[0]}"
        )
        if config.missing == "refuse":
            raise ExcotError(counts, "add them (null is no answer), or give --missing wrong or --missing skip")
        log.warning("%s; %s", counts, "they count as wrong" if config.missing == "wrong" else "they are left out")
    if config.missing == "skip":
        questions = [question for question in questions if question["id"] in found]
        if not questions:
            raise ExcotError(f"{path} has no prediction for any of the questions", "is it for another benchmark?")
    return Answers(
        system=config.name or path.stem,
        source=f"{path} ({FORMATS[format]})",
        questions=questions,
        predictions=_shaped([found.get(question["id"]) for question in questions]),
        databases=files,
        arguments={"predictions": file_hash(path)[:16], "format": format, "missing": config.missing},
        inputs={},
        facts={"without_prediction": len(missing), **left_out},
    )


def _from_generations(run: Run, config: ScoreConfig, files: Files | None, exclusion: Exclusion) -> Answers:
    if "generations" not in run.manifest["stages"]:
        raise ExcotError(
            f"{run.folder} has no answers to score",
            "give --predictions FILE or --model MODEL, or run `excot generate` first",
        )
    entry = run.entry("generations")
    made = entry["arguments"]
    rows = list(islice(run.read("generations", [*_COLUMNS, "candidates"]), config.limit))
    files = files or _find_files(run, config, rows)
    questions, left_out = _select([row for row in rows if files.paths[row["db_id"]]], exclusion, config)
    if entry["failed"]:
        log.warning("%d questions were not answered: they count as wrong", len(entry["failed"]))
    if entry["note"]:
        log.warning(entry["note"])
    if made["model"] and not config.model:
        _warn_of_prompt(made.get("adapter") or made["model"], entry["prompt_id"])
    predictions: list[Prediction] = []
    cut_off: dict[str, set[int]] = {}
    for question in questions:
        samples: list[str | None] = []
        for place, candidate in enumerate(question.pop("candidates")):
            found = extract_sql(candidate["text"], candidate["finish_reason"])
            samples.append(candidate["text"] if found.sql is not None else None)
            if found.status == "truncated":
                cut_off.setdefault(question["id"], set()).add(place)
        predictions.append(samples)
    return Answers(
        system=config.name or _system_of(made.get("adapter") or made["model"] or entry["model"]),
        source=f"the generations of {entry['model']}",
        questions=questions,
        predictions=_shaped(predictions),
        databases=files,
        arguments={name: value for name, value in made.items() if name != "limit"},
        inputs={"generations": entry["fingerprint"]},
        facts={
            "model": entry["model"],
            "prompt_id": entry["prompt_id"],
            "sampling": json.dumps({name: made[name] for name in _SAMPLING if name in made}),
            "note": entry["note"],
            **left_out,
        },
        cut_off=cut_off,
    )


def _select(
    questions: list[dict[str, Any]], exclusion: Exclusion, config: ScoreConfig
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The questions that are not to be left out, and how many are, if any may be."""
    left_out = exclusion.facts(question["id"] for question in questions)
    kept = [question for question in questions if question["id"] not in exclusion.ids]
    if questions and not kept:
        raise ExcotError(f"{config.exclude} leaves out all {len(questions):,} questions", "take lines out of it")
    return kept, left_out


def _shaped(predictions: list[Prediction]) -> list[Prediction]:
    """One answer each where no question has several, else a list each: of both the scores tell different things."""
    lists = [[] if found is None else [found] if isinstance(found, str) else list(found) for found in predictions]
    if all(len(samples) < 2 for samples in lists):
        return [samples[0] if samples else None for samples in lists]
    return lists


def _find_files(run: Run, config: ScoreConfig, questions: Sequence[Mapping[str, Any]]) -> Files:
    files = find_files(run, config.databases, [question["db_id"] for question in questions])
    if files.without:
        log.warning("they are left out: this is no score on all %d questions", len(questions))
    return files


def _system_of(model: str) -> str:
    return Path(model).resolve().name if Path(model).is_dir() else model


def _own_prompt(model: str) -> str:
    """The style or template that a model was trained under by excot, else the default style."""
    prompt_id, template = trained_prompt(model), Path(model) / "prompt.jinja"
    for style in STYLES:
        if prompt_id == load_prompt(style).id:
            return style
    return str(template) if prompt_id and template.is_file() else STYLES[0]


def _warn_of_prompt(model: str, used: str) -> None:
    trained = trained_prompt(model)
    # The same text may go by two names: its hash tells.
    if trained and trained.rpartition("-")[2] != used.rpartition("-")[2]:
        log.warning("%s was trained under prompt %s and answers under %s: scores suffer", model, trained, used)
