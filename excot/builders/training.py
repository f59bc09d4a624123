"""What `sft` and `pairs` have in common: which answers are right, and the prompt that a student sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..config import PairsConfig, SftConfig
from ..errors import ExcotError
from ..prompts import Prompt, stored_prompt
from ..run import Run
from .exclusion import read_exclusion

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("excot")

Message = dict[str, str]


def write_training_data(
    stage_name: str,
    config: SftConfig | PairsConfig,
    rows_of: Callable[[Run, Any, frozenset[str]], Iterator[dict[str, Any]]],
    schema: pa.Schema,
) -> str:
    """Write a dataset for training from the verified questions, unless it is there already; how many of how many.

    Args:
        stage_name: ``sft`` or ``pairs``.
        config: its options.
        rows_of: makes the rows from the run folder, the options, and the ids of the questions to leave out.
        schema: the rows' columns.

    Raises:
        ExcotError: there is no verified data, no row comes of it, the list of what to leave out does not fit,
            or the run folder holds something else.
    """
    run = Run(config.out, config.round)
    run.entry("verified")
    exclusion = read_exclusion(config.exclude, run)
    if config.dry_run:
        return f"would write {sum(1 for _ in rows_of(run, config, exclusion.ids)):,}"
    arguments = {**config.arguments(), **exclusion.arguments()}
    with run.begin(stage_name, arguments, ("verified",), on_existing=config.on_existing) as stage:
        split = run.entry("questions")["split"]
        if split != "train":
            log.warning("these are %s questions: scores on them mean nothing for a model trained on this data", split)
        if not stage.finished:
            rows = rows_of(run, config, exclusion.ids)
            facts = exclusion.facts(row["id"] for row in run.read("verified", ["id"]))
            first = next(rows, None)
            if first is None:  # which `load_dataset` could not open either
                raise ExcotError(
                    f"no row of {stage_name} comes of the {_questions(run, facts)} in {config.out}",
                    "look at the statuses and matches in verified; sample more answers, or choose another --rule",
                )
            stage.write(chain([first], rows), schema, "train", **facts)
    entry = run.entry(stage_name)
    return f"{'already there: ' if stage.finished else ''}{_questions(run, entry)} give {entry['rows']:,}"


def _questions(run: Run, facts: dict[str, Any]) -> str:
    """How many questions there are, and how many of them were left out if any could be."""
    left_out = f", {facts['excluded']:,} of them left out," if "excluded" in facts else ""
    return f"{run.entry('verified')['rows']:,} questions{left_out}"


def student_prompts(run: Run) -> Callable[[dict[str, Any]], list[Message]]:
    """How to render a question for a student: the prompt of its answers, without the teacher's few-shot examples.

    The template comes from the run folder itself, so that data made elsewhere trains under the prompt it was made
    with.

    Raises:
        ExcotError: the template is not in the run folder, or is not the one that the answers were made with.
    """
    prompts: dict[str, Prompt] = {}

    def render(row: dict[str, Any]) -> list[Message]:
        prompt_id = row["prompt_id"]
        if prompt_id not in prompts:
            prompts[prompt_id] = stored_prompt(run.prompt_path(prompt_id), prompt_id)
        return prompts[prompt_id].messages(row["question"], row["schema"] or "", row["evidence"])

    return render


def usable_rows(run: Run, excluded: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """Verified questions whose gold ran and returned rows; an empty result would call too much right."""
    for row in run.read("verified"):
        if row["gold"]["status"] == "ok" and row["id"] not in excluded:
            yield row


def right_answers(row: dict[str, Any], rule: str) -> list[dict[str, Any]]:
    """A question's right candidates in their order, each text once, without those that were cut off at the end."""
    return _different(
        candidate
        for candidate in row["candidates"]
        if candidate["matches"][rule] and candidate["finish_reason"] != "length"
    )


def wrong_answers(row: dict[str, Any], rule: str, statuses: list[str]) -> list[dict[str, Any]]:
    """A question's wrong candidates of certain statuses in their order, each text once."""
    return _different(
        candidate
        for candidate in row["candidates"]
        if not candidate["matches"][rule] and candidate["status"] in statuses
    )


def said(text: str) -> list[Message]:
    """An answer as the assistant's only message."""
    return [{"role": "assistant", "content": text}]


def _different(candidates: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    by_text: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        if candidate["text"]:
            by_text.setdefault(candidate["text"], candidate)
    return list(by_text.values())
