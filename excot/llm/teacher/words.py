"""Pieces of a query in English: what is selected, from where, under which conditions, in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlglot import exp

from . import sites
from .rendering import in_backticks, render
from .schema import Schema

_COMPARED: dict[type[exp.Expression], str] = {
    exp.EQ: "is",
    exp.NEQ: "is not",
    exp.GT: "is greater than",
    exp.GTE: "is at least",
    exp.LT: "is less than",
    exp.LTE: "is at most",
    exp.Like: "matches",
}
_AGGREGATED: dict[type[exp.Expression], str] = {
    exp.Max: "the largest",
    exp.Min: "the smallest",
    exp.Avg: "the average",
    exp.Sum: "the sum of",
}


@dataclass
class Words:
    """Describes the nodes of one tree.

    Attributes:
        schema: tells strings in double quotes from columns.
        original: the gold's text, whose way of quoting names is kept.
        numbers: sub-questions that stand for nested queries: the query's ``id()`` to its number.
        texts: the SQL text of these queries to their numbers.
    """

    schema: Schema
    original: str
    numbers: dict[int, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def sql(self, node: exp.Expression) -> str:
        """SQL as it is run."""
        return in_backticks(render(node), self.original)

    def pseudo(self, node: exp.Expression) -> str:
        """SQL with ``<1.1>`` in the place of each nested query that is a sub-question."""
        text = self.sql(node)
        for query, number in self.texts.items():
            text = text.replace(f"({query})", f"<{number}>")
        return text

    def number(self, query: exp.Expression, number: str) -> None:
        """Let ``number`` stand for a nested query from now on."""
        self.numbers[id(query)] = number
        self.texts[self.sql(query)] = number

    def expression(self, node: exp.Expression) -> str:
        node = node.unalias()
        if isinstance(node, exp.Star):
            return "all columns"
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Count):
            return self._count(node)
        if type(node) in _AGGREGATED and len(node.args) and not node.expressions:
            return f"{_AGGREGATED[type(node)]} {self.expression(node.this)}"
        if isinstance(node, exp.Distinct):
            return "different " + listed(map(self.expression, node.expressions))
        if isinstance(node, exp.Subquery) and id(node.this) in self.numbers:
            return f"the answer to sub-question {self.numbers[id(node.this)]}"
        if isinstance(node, exp.Literal):
            return self.sql(node)
        return f"`{self.pseudo(node)}`" if "`" not in self.original else self.pseudo(node)

    def condition(self, node: exp.Expression) -> str:
        if isinstance(node, (exp.And, exp.Or)):
            word = " and " if isinstance(node, exp.And) else " or "
            return word.join(self.condition(part) for part in node.flatten(unnest=False))
        if isinstance(node, exp.Paren):
            return f"({self.condition(node.this)})"
        if type(node) in _COMPARED:
            verb = "does not match" if node.args.get("negate") else _COMPARED[type(node)]
            return f"{self.expression(node.this)} {verb} {self.expression(node.expression)}"
        if isinstance(node, exp.Not) and isinstance(node.this, (exp.In, exp.Is, exp.Between)):
            return self._membership(node.this, " not")
        if isinstance(node, exp.Not):
            return f"it is not so that {self.condition(node.this)}"
        if isinstance(node, (exp.In, exp.Is, exp.Between)):
            return self._membership(node, "")
        if isinstance(node, exp.Exists) and id(node.this) in self.numbers:
            return f"sub-question {self.numbers[id(node.this)]} has an answer"
        return self.expression(node)

    def projections(self, select: exp.Select) -> str:
        text = listed(map(self.expression, select.expressions))
        return f"each different {text}" if select.args.get("distinct") else text

    def tables(self, select: exp.Select) -> str:
        names = []
        for source in sites.sources(select).values():
            if isinstance(source, exp.Table):
                names.append(f"`{source.name}`")
            elif id(source.this) in self.numbers:
                names.append(f"the result of sub-question {self.numbers[id(source.this)]}")
        return listed(dict.fromkeys(names)) or "no table"

    def keys(self, order: exp.Order) -> str:
        ways = {True: "descending", False: "ascending"}
        return listed(f"{self.expression(key.this)}, {ways[bool(key.args.get('desc'))]}" for key in order.expressions)

    def limit(self, limit: exp.Expression) -> str:
        """``the first row``, ``the first 3 rows``."""
        count = self.sql(limit.expression or limit)
        return "the first row" if count == "1" else f"the first {count} rows"

    def gist(self, query: exp.Expression) -> str:
        """A whole query in one phrase: ``the average `age` from `singer`, where `country` is 'France'``."""
        query = query.unnest()
        if isinstance(query, exp.SetOperation):
            return f"{self.gist(query.this)} {type(query).__name__.lower()} {self.gist(query.expression)}"
        if not isinstance(query, exp.Select):
            return f"`{self.pseudo(query)}`"
        text = f"{self.projections(query)} from {self.tables(query)}"
        if where := query.args.get("where"):
            text += f" where {self.condition(where.this)}"
        if (group := query.args.get("group")) and group.expressions:
            text += f", per {listed(map(self.expression, group.expressions))}"
        if having := query.args.get("having"):
            text += f", if {self.condition(having.this)}"
        if order := query.args.get("order"):
            text += f", sorted by {self.keys(order)}"
        if limit := query.args.get("limit"):
            text += f", only {self.limit(limit)}"
        return text

    def _column(self, node: exp.Column) -> str:
        if sites.is_text(node, self.schema):
            return self.sql(node)
        if isinstance(node.this, exp.Star):
            return f"all columns of `{sites.table_of(node, self.schema) or node.table}`"
        select = node.find_ancestor(exp.Select)
        if node.table and select is not None and len(sites.sources(select)) > 1:
            return f"`{sites.table_of(node, self.schema) or node.table}.{node.name}`"
        return f"`{node.name}`"

    def _count(self, node: exp.Count) -> str:
        if isinstance(node.this, exp.Star):
            return "the number of rows"
        if isinstance(node.this, exp.Distinct):
            return f"the number of {self.expression(node.this)}"
        return f"the number of values of {self.expression(node.this)}" if node.this else "the number of rows"

    def _membership(self, node: exp.Expression, negation: str) -> str:
        left = self.expression(node.this)
        if isinstance(node, exp.Between):
            low, high = self.expression(node.args["low"]), self.expression(node.args["high"])
            return f"{left} is{negation} between {low} and {high}"
        if isinstance(node, exp.Is):
            return f"{left} is{negation} {self.sql(node.expression)}"
        query = node.args.get("query")
        if query is not None:
            return f"{left} is{negation} among {self.expression(query).replace('the answer', 'the answers')}"
        return f"{left} is{negation} one of {listed(map(self.expression, node.expressions))}"


def listed(items: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = list(items) or [""]
    return f"{', '.join(first)} and {last}" if first else last
