"""The length gate: no row is ever truncated. What is too long is dropped and counted before training."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError

if TYPE_CHECKING:
    from datasets import Dataset

MOST_DROPPED = 0.05
"""The share of rows that may be dropped without being asked for."""

_ANSWERS = {"sft": ("completion",), "dpo": ("chosen", "rejected"), "grpo": ()}


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens, of prompt and longest answer together, of the rows that were kept and of all.

    Attributes:
        rows: how many rows there were.
        dropped: how many of them were over the limit.
        limit: the limit, or ``None``.
        tokens: the sum over the rows kept; for pairs of both answers with their prompts.
        median, high, longest: over all rows; ``high`` is the 95th percentile.
    """

    rows: int
    dropped: int
    limit: int | None
    tokens: int
    median: int
    high: int
    longest: int

    def __str__(self) -> str:
        text = (
            f"{self.rows:,} rows of {self.median:,} tokens (median), {self.high:,} (95%), {self.longest:,} (longest)"
        )
        if self.limit is None:
            return text
        return f"{text}; {self.dropped:,} over the limit of {self.limit:,} dropped ({self.dropped / self.rows:.1%})"


def drop_overlong(
    rows: Dataset, tokenizer: Any, stage: str, limit: int | None, allow_drops: bool, processes: int | None = None
) -> tuple[Dataset, Lengths]:
    """Drop the rows that the trainer would truncate.

    Args:
        rows: columns as in `data.COLUMNS`.
        tokenizer: with a chat template.
        stage: ``sft``, ``dpo`` or ``grpo``, of whose rows only the prompt is there to be measured.
        limit: the most tokens a row may have; ``None`` drops nothing.
        allow_drops: go on although more than `MOST_DROPPED` of them are over it.
        processes: how many tokenize at once.

    Returns:
        The rows kept, which are ``rows`` itself where nothing was dropped, and the lengths.

    Raises:
        ExcotError: too many rows are over the limit, or all of them.
    """
    measured = rows.map(
        _measure,
        fn_kwargs={"tokenizer": tokenizer, "answers": _ANSWERS[stage]},
        remove_columns=rows.column_names,
        num_proc=processes,
        desc="Measuring",
    )
    longest, tokens = list(measured["longest"]), list(measured["tokens"])
    kept = [place for place, length in enumerate(longest) if limit is None or length <= limit]
    ordered = sorted(longest)
    lengths = Lengths(
        rows=len(rows),
        dropped=len(rows) - len(kept),
        limit=limit,
        tokens=sum(tokens[place] for place in kept),
        median=int(statistics.median(ordered)),
        high=ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        longest=ordered[-1],
    )
    if not kept:
        raise ExcotError(
            f"every row is over {limit:,} tokens (the shortest has {ordered[0]:,})", "raise the length limit"
        )
    if lengths.dropped > MOST_DROPPED * len(rows) and not allow_drops:
        raise ExcotError(
            f"{lengths.dropped:,} of {len(rows):,} rows ({lengths.dropped / len(rows):.1%}) are over {limit:,} tokens "
            f"(median {lengths.median:,}, longest {lengths.longest:,})",
            "raise the length limit, or drop them with --allow_drops",
        )
    return (rows.select(kept) if lengths.dropped else rows), lengths


def _measure(row: dict[str, Any], tokenizer: Any, answers: tuple[str, ...]) -> dict[str, int]:
    if not answers:
        count = _count(tokenizer, row["prompt"], add_generation_prompt=True)
        return {"longest": count, "tokens": count}
    counts = [_count(tokenizer, row["prompt"] + row[answer]) for answer in answers]
    return {"longest": max(counts), "tokens": sum(counts)}


def _count(tokenizer: Any, messages: list[dict[str, str]], **options: bool) -> int:
    return len(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"])
