"""From a query to sub-questions: the divide step of divide and conquer, read off the syntax tree.

Set operations, common table expressions and nested queries are sub-questions of their own; the clauses of one SELECT
(joins, conditions, groups, order) are steps, each of which starts from the rows of the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from . import sites
from .schema import Schema
from .words import Words, listed


@dataclass(frozen=True)
class SubQuestion:
    """One node of the tree of questions.

    Attributes:
        kind: ``"main"``, ``"set"`` (a main question that combines two results), ``"table"``, ``"join"``, ``"filter"``,
            ``"group"``, ``"having"``, ``"order"``, ``"query"`` (nested), ``"cte"``: which phrases suit it.
        number: ``"1"``, ``"1.1"``, ...; empty for the main question.
        facts: words that fill the phrases.
        pseudo: its pseudo SQL; ``<1>`` stands for the result of sub-question 1.
        sql: the SQL that answers it.
        parts: the sub-questions it needs first.
    """

    kind: str
    number: str
    facts: dict[str, str]
    pseudo: str
    sql: str
    parts: tuple[SubQuestion, ...] = field(default=())


def take_apart(query: exp.Query, schema: Schema, original: str) -> SubQuestion:
    """Split a query into its tree of sub-questions.

    Args:
        query: the syntax tree, which must not be edited while the result is in use.
        schema: names, types and sample values for the analyses; may be empty.
        original: the gold's text, for its way of quoting names.

    Returns:
        The main question; its ``sql`` is the whole query on one line.
    """
    return _Splitter(Words(schema, original), schema).question(query, "", "main")


@dataclass
class _Splitter:
    words: Words
    schema: Schema

    def question(self, query: exp.Expression, number: str, kind: str, **facts: str) -> SubQuestion:
        """The sub-question that a whole query answers; its nested queries and steps are its parts."""
        sql = self.words.sql(query)
        numbers = _Numbers(number)
        parts = [
            self.question(cte.this, self._stands_for(cte.this, next(numbers)), "cte", name=cte.alias)
            for cte in query.ctes
        ]
        if isinstance(query, exp.SetOperation):
            parts += self._nested(query, numbers)
            sides = {"left": self._side(query.this), "right": self._side(query.expression), "word": _set_word(query)}
            pseudo = "<{left}> {word} <{right}>".format(**sides)
            for key in ("order", "limit", "offset"):
                if clause := query.args.get(key):
                    pseudo += f"\n{self.words.pseudo(clause)}"
            kind = "set" if kind == "main" else kind
            facts = {**facts, **sides}
        elif isinstance(query, exp.Select):
            pseudo = self._split_select(query, numbers, parts, top=kind == "main")
            facts = {**facts, "what": self.words.projections(query), "tables": self.words.tables(query)}
            facts["columns"] = self._columns(query)
            facts["outer"] = self._outer(query)
        else:
            pseudo = sql
        facts["gist"] = self.words.gist(query)
        return SubQuestion(kind, number, facts, pseudo, sql, tuple(parts))

    def _split_select(self, select: exp.Select, numbers: _Numbers, parts: list[SubQuestion], top: bool) -> str:
        """Append the steps of one SELECT to ``parts``; return the pseudo SQL of what is left to do after them."""
        for projection in select.expressions:
            parts += self._nested(projection, numbers)
        steps = [name for name in ("join", "filter", "group", "order") if self._has(select, name)]
        if not top and len(steps) < 3:  # short enough to be answered at once
            parts += self._nested(select, numbers)
            return self.words.pseudo(select)

        makers = {"filter": self._filter, "group": self._group, "order": self._order}
        makers |= {"table": self._join, "join": self._join}
        source = ""
        for name in steps or ["table"]:
            number = next(numbers)
            parts.append(makers[name](select, number, source))
            source = f"<{number}>"
        distinct = "DISTINCT " if select.args.get("distinct") else ""
        shown = ", ".join(self.words.pseudo(projection) for projection in select.expressions)
        return f"SELECT {distinct}{shown}\nFROM {source}"

    def _has(self, select: exp.Select, step: str) -> bool:
        args = select.args
        if step == "join":
            derived = args.get("from_") and isinstance(args["from_"].this, exp.Subquery)
            return bool(args.get("joins") or derived)
        names = {"filter": ("where",), "group": ("group", "having"), "order": ("order", "limit")}
        return any(args.get(name) for name in names[step])

    def _join(self, select: exp.Select, number: str, source: str) -> SubQuestion:
        clause, joins = select.args.get("from_"), select.args.get("joins") or []
        numbers = _Numbers(number)
        parts = [part for node in [clause, *joins] if node for part in self._nested(node, numbers)]
        links = [self.words.pseudo(join.args["on"]) for join in joins if join.args.get("on")]
        facts = {"tables": self.words.tables(select)}
        facts["links"] = listed(f"`{link}`" if "`" not in link else link for link in links)
        pseudo = " ".join(self.words.pseudo(node) for node in [clause, *joins] if node)
        kind = "join" if joins else "table"
        return SubQuestion(kind, number, facts, pseudo or "nothing to read", self._upto(select), tuple(parts))

    def _filter(self, select: exp.Select, number: str, source: str) -> SubQuestion:
        where = select.args["where"]
        parts = self._nested(where, _Numbers(number))
        facts = {"condition": self.words.condition(where.this), "tables": self.words.tables(select)}
        facts["samples"] = self._samples(select, where)
        source = source or self._plain_source(select)
        pseudo = f"ROWS OF {source}\n{self.words.pseudo(where)}"
        return SubQuestion("filter", number, facts, pseudo, self._upto(select, "where"), tuple(parts))

    def _group(self, select: exp.Select, number: str, source: str) -> SubQuestion:
        group, having = select.args.get("group"), select.args.get("having")
        parts = self._nested(having, _Numbers(number)) if having else []
        keys = group.expressions if group else []
        facts = {"keys": listed(map(self.words.expression, keys)) or "nothing: all rows are one group"}
        values = [node for node in self._computed(select) if node not in keys]
        facts["values"] = listed(map(self.words.expression, values)) or "nothing else"
        facts["condition"] = self.words.condition(having.this) if having else ""
        pseudo = f"FOR EACH {', '.join(map(self.words.pseudo, keys)) or 'group'} IN "
        pseudo += source or self._plain_source(select)
        if values:
            pseudo += f"\nCOMPUTE {', '.join(self.words.pseudo(value) for value in values)}"
        if having:
            pseudo += f"\n{self.words.pseudo(having)}"
        sql = self._upto(select, "where", "group", "having")
        return SubQuestion("having" if having else "group", number, facts, pseudo, sql, tuple(parts))

    def _order(self, select: exp.Select, number: str, source: str) -> SubQuestion:
        order, limit = select.args.get("order"), select.args.get("limit")
        parts = self._nested(order, _Numbers(number)) if order else []
        facts = {"keys": self.words.keys(order) if order else ""}
        facts["limit"] = self.words.limit(limit) if limit else ""
        clauses = [self.words.pseudo(clause) for clause in (order, limit, select.args.get("offset")) if clause]
        source = source or self._plain_source(select)
        sql = self._upto(select, "where", "group", "having", "order", "limit", "offset")
        return SubQuestion("order", number, facts, "\n".join([f"ROWS OF {source}", *clauses]), sql, tuple(parts))

    def _upto(self, select: exp.Select, *clauses: str) -> str:
        """The SELECT with only these of its clauses."""
        shown = "*"
        if "group" in clauses and (select.args.get("group") or select.args.get("having")):
            group = select.args.get("group")
            keys = [node for node in group.expressions if node not in select.expressions] if group else []
            extra = [node for node in self._computed(select, aliased=True) if node not in keys]
            shown = ", ".join(map(self.words.sql, [*keys, *extra])) or "*"
        elif "order" in clauses and any(projection.alias for projection in select.expressions):
            shown = ", ".join(map(self.words.sql, select.expressions))  # the order may use the alias
        nodes = [select.args.get("from_"), *(select.args.get("joins") or []), *map(select.args.get, clauses)]
        return " ".join([f"SELECT {shown}", *(self.words.sql(node) for node in nodes if node)])

    def _computed(self, select: exp.Select, aliased: bool = False) -> list[exp.Expression]:
        """What is shown of each group, and the aggregates that HAVING and ORDER BY need besides."""
        shown = list(select.expressions)
        bare = [node.unalias() for node in shown]
        for clause in (select.args.get("having"), select.args.get("order")):
            found = sites.own(select, clause, exp.AggFunc) if clause else ()
            bare += [node for node in found if node not in bare]
        return shown + bare[len(shown) :] if aliased else bare

    def _nested(self, part: exp.Expression, numbers: _Numbers) -> list[SubQuestion]:
        """The queries directly inside a part, as sub-questions; those inside these are their own affair."""
        found = [query for query in _queries_in(part) if id(query) not in self.words.numbers]
        return [self.question(query, self._stands_for(query, next(numbers)), "query") for query in found]

    def _stands_for(self, query: exp.Expression, number: str) -> str:
        self.words.number(query, number)
        return number

    def _side(self, query: exp.Expression) -> str:
        return self.words.numbers.get(id(query.unnest()), "?")  # a side that is no query: nonsense that parses

    def _plain_source(self, select: exp.Select) -> str:
        return ", ".join(source.name for source in sites.sources(select).values()) or "nothing"

    def _columns(self, select: exp.Select) -> str:
        """What the schema says about the columns in use, table by table."""
        used: dict[str, list[str]] = {}
        for column in sites.real_columns(select, select, self.schema):
            table = sites.table_of(column, self.schema)
            if table and self.schema.of(table):
                used.setdefault(table, []).append(f"`{column.name}`")
        return "; ".join(f"`{table}` has {listed(dict.fromkeys(names))}" for table, names in used.items())

    def _samples(self, select: exp.Select, where: exp.Expression) -> str:
        for column in sites.real_columns(select, where, self.schema):
            known = sites.schema_column(column, self.schema)
            if known and known.samples:
                return f"`{known.name}` holds values such as {listed(known.samples[:2])}"
        return ""

    def _outer(self, select: exp.Select) -> str:
        """The first column of an enclosing query that this one refers to, if any."""
        inside = {alias for inner in sites.selects(select) for alias in sites.sources(inner)}
        for column in select.find_all(exp.Column):
            if column.table and column.table.lower() not in inside:
                return f"`{column.table}.{column.name}`"
        return ""


def _queries_in(node: exp.Expression) -> Iterator[exp.Expression]:
    for child in node.iter_expressions():
        if isinstance(child, exp.Query) and not isinstance(child, exp.Subquery):
            yield child
        elif not isinstance(child, exp.With):
            yield from _queries_in(child)


class _Numbers:
    """1, 2, 3, ... below a number: 1.1, 1.2, ..."""

    def __init__(self, above: str):
        self._above, self._count = above, 0

    def __next__(self) -> str:
        self._count += 1
        return f"{self._above}.{self._count}" if self._above else str(self._count)


def _set_word(query: exp.SetOperation) -> str:
    word = type(query).__name__.upper()
    return word if query.args.get("distinct") is not False else f"{word} ALL"
