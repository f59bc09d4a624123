"""Realistic mistakes: what text-to-SQL models get wrong, as edits of the gold's syntax tree.

Every mistake looks for places where it can be made and makes itself at one of them. Some are often harmless under the
set comparison of BIRD (a missing DISTINCT, ``>=`` for ``>``, an order that nobody looks at): these are rare, and
mostly come with a second one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sqlglot import exp

from . import row_mistakes, select_mistakes
from .schema import Schema

SECOND_MISTAKE = 0.85
"""How often a mistake that is often harmless is followed by one that is not."""


@dataclass(frozen=True)
class Mistake:
    """One kind of mistake.

    Attributes:
        kind: what was done, in words.
        weight: how often it is tried first, relative to the others.
        make: edits the tree below the node it is given, in place; ``False`` where there is no place for it.
        harmless: whether it often changes nothing about the set of rows.
    """

    kind: str
    weight: float
    make: Callable[[exp.Expression, Schema, Random], bool]
    harmless: bool = False


MISTAKES = (
    Mistake("wrong column selected", 2.5, select_mistakes.wrong_column),
    Mistake("extra column selected", 1.5, select_mistakes.extra_column),
    Mistake("missing column", 1.5, select_mistakes.missing_column),
    Mistake("columns in the wrong order", 1, select_mistakes.swapped_columns),
    Mistake("invented a column", 0.5, select_mistakes.invented_column),
    Mistake("wrong aggregate", 2.5, select_mistakes.wrong_aggregate),
    Mistake("forgot to aggregate", 0.7, select_mistakes.forgot_to_aggregate),
    Mistake("missing DISTINCT", 0.8, select_mistakes.missing_distinct, harmless=True),
    Mistake("missing GROUP BY column", 1, select_mistakes.missing_group),
    Mistake("changed HAVING", 1.5, select_mistakes.changed_having),
    Mistake("wrong order direction", 1.5, select_mistakes.wrong_top_direction),
    Mistake("sorted the wrong way", 0.4, select_mistakes.wrong_direction, harmless=True),
    Mistake("sorted by the wrong column", 1, select_mistakes.wrong_order_column),
    Mistake("wrong limit", 1, select_mistakes.wrong_limit),
    Mistake("dropped a condition", 3, row_mistakes.dropped_condition),
    Mistake("wrong column in a condition", 2, row_mistakes.wrong_condition_column),
    Mistake("turned a comparison around", 2, row_mistakes.turned_comparison),
    Mistake("strict for non-strict comparison", 0.8, row_mistakes.strictness, harmless=True),
    Mistake("changed a value", 2.5, row_mistakes.changed_value),
    Mistake("lost a NOT", 1.5, row_mistakes.lost_not),
    Mistake("AND and OR confused", 1.5, row_mistakes.and_for_or),
    Mistake("dropped a join", 2, row_mistakes.dropped_join),
    Mistake("wrong join key", 2, row_mistakes.wrong_join_key),
    Mistake("left join for inner join", 0.4, row_mistakes.left_join, harmless=True),
    Mistake("wrong table", 1, row_mistakes.wrong_table),
    Mistake("wrong set operation", 2.5, row_mistakes.wrong_set_operation),
    Mistake("forgot half of the question", 1, row_mistakes.dropped_half),
)


def make_mistake(query: exp.Query, schema: Schema, rng: Random) -> tuple[exp.Query, str] | None:
    """A wrong version of a right query, and what was done to it (two kinds are joined by ``"; "``).

    Args:
        query: the gold's tree; it is not changed.
        schema: what the columns are chosen from; may be empty.
        rng: the only source of chance.

    Returns:
        A new tree that differs from ``query``, or ``None`` where no mistake finds a place.
    """
    # Weighted order without replacement (Efraimidis and Spirakis): a larger weight brings the key nearer to 1.
    order = sorted(MISTAKES, key=lambda mistake: rng.random() ** (1 / mistake.weight), reverse=True)
    first = _make_one_of(order, query, schema, rng)
    if first is None:
        return None
    wrong, mistake = first
    if mistake.harmless and rng.random() < SECOND_MISTAKE:
        others = [other for other in order if not other.harmless]
        second = _make_one_of(others, wrong, schema, rng)
        if second is not None and second[0] != query:
            return second[0], f"{mistake.kind}; {second[1].kind}"
    return wrong, mistake.kind


def apply(mistake: Mistake, query: exp.Query, schema: Schema, rng: Random) -> exp.Query | None:
    """One kind of mistake, made in a copy of ``query``; ``None`` where it finds no place or changes nothing."""
    holder = exp.Paren(this=query.copy())  # so that the query itself, too, has a parent to be replaced in
    return holder.this if mistake.make(holder, schema, rng) and holder.this != query else None


def _make_one_of(
    mistakes: list[Mistake], query: exp.Query, schema: Schema, rng: Random
) -> tuple[exp.Query, Mistake] | None:
    for mistake in mistakes:
        wrong = apply(mistake, query, schema, rng)
        if wrong is not None:
            return wrong, mistake
    return None
