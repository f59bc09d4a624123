"""Habits: mistakes that are always the same. A model that has one makes it wherever it can, not here and there.

They are of the kind that one database often does not show: where no row lies on the boundary, a strict comparison
gives the gold's result, and execution calls it right. What learns from such answers takes the habit over.
"""

from __future__ import annotations

from sqlglot import exp

from . import sites

_READ_AS: dict[type[exp.Expression], type[exp.Expression]] = {exp.GTE: exp.GT, exp.LTE: exp.LT}


def give_in(query: exp.Query) -> tuple[exp.Query, str] | None:
    """The query as somebody writes it who reads "at least" as "more than", and "at most" as "less than".

    Args:
        query: the gold's tree; it is not changed.

    Returns:
        A new tree and what was done to it, or ``None`` where there is no place for the habit.
    """
    holder = exp.Paren(this=query.copy())  # so that the query itself, too, has a parent
    places = sites.predicates(holder, *_READ_AS)
    for node in places:
        node.replace(_READ_AS[type(node)](this=node.this.copy(), expression=node.expression.copy()))
    return (holder.this, "strict for non-strict comparison, by habit") if places else None
