"""Where in a query something can go wrong: its columns, the tables behind them, its predicates and its values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from sqlglot import exp

from .schema import Column, Schema

# The words that SQLite does not take for a column's or a table's name unless they are quoted.
_RESERVED = frozenset(
    """ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CAST CHECK COLLATE COMMIT CONSTRAINT CREATE CROSS CURRENT_DATE
    CURRENT_TIME CURRENT_TIMESTAMP DEFAULT DEFERRABLE DELETE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM
    FULL GROUP HAVING IN INDEX INDEXED INNER INSERT INTERSECT INTO IS ISNULL JOIN LEFT LIMIT NATURAL NOT NOTHING
    NOTNULL NULL ON OR ORDER OUTER PRIMARY RAISE REFERENCES RETURNING RIGHT SELECT SET TABLE THEN TO TRANSACTION
    UNION UNIQUE UPDATE USING VALUES WHEN WHERE""".split()
)

COMPARISONS = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


def selects(root: exp.Expression) -> list[exp.Select]:
    """Every SELECT, the outermost first."""
    return list(root.find_all(exp.Select))


def own(select: exp.Expression, part: exp.Expression, *kinds: type[exp.Expression]) -> Iterator[exp.Expression]:
    """The nodes of these kinds in a part of ``select`` that belong to it and not to a query nested inside."""
    return (node for node in part.find_all(*kinds) if node.find_ancestor(exp.Select) in (select, None))


def sources(select: exp.Select) -> dict[str, exp.Table | exp.Subquery]:
    """What a SELECT reads, by lower-case alias or name, in the order of FROM and the joins."""
    clause = select.args.get("from_")
    nodes = ([clause.this] if clause else []) + [join.this for join in select.args.get("joins") or []]
    return {node.alias_or_name.lower(): node for node in nodes if isinstance(node, (exp.Table, exp.Subquery))}


def is_text(column: exp.Expression, schema: Schema) -> bool:
    """Whether a "column" is really a string in double quotes, as Spider's golds write them.

    SQLite reads ``"France"`` as a string where no column has that name; so do we where the schema is known, and
    otherwise where it is compared to something.
    """
    if not isinstance(column, exp.Column) or not isinstance(column.this, exp.Identifier):
        return False
    if not column.this.quoted or column.table:
        return False
    if schema.columns:
        return not schema.has_column(column.name)
    return isinstance(column.parent, (exp.Binary, exp.In)) and column.arg_key != "this"


def table_of(column: exp.Column, schema: Schema) -> str | None:
    """The name of the table that a column comes from, looking outward from its own SELECT; ``None`` if unknown."""
    select = column.find_ancestor(exp.Select)
    while select is not None:
        found = sources(select)
        if column.table:
            candidates = [found[column.table.lower()]] if column.table.lower() in found else []
        elif len(found) == 1:
            candidates = list(found.values())
        else:
            candidates = [source for source in found.values() if schema.find(source.name, column.name)]
        if candidates:
            return candidates[0].name if isinstance(candidates[0], exp.Table) else None
        select = select.find_ancestor(exp.Select)
    return None


def real_columns(select: exp.Select, part: exp.Expression, schema: Schema) -> list[exp.Column]:
    """The columns of a part of ``select`` that are neither ``t.*`` nor strings."""
    found = own(select, part, exp.Column)
    return [node for node in found if not isinstance(node.this, exp.Star) and not is_text(node, schema)]


def alternatives(column: exp.Column, schema: Schema, same_type: bool = False) -> list[str]:
    """Names of other columns that could have been written instead: of the same table, or used with the same alias."""
    table = table_of(column, schema)
    known = schema.of(table) if table else ()
    if known:
        this = schema.find(table or "", column.name)
        if same_type and this is not None:
            known = tuple(other for other in known if other.numeric == this.numeric)
        names = [other.name for other in known]
    else:
        others = (other for other in column.root().find_all(exp.Column) if isinstance(other.this, exp.Identifier))
        names = [other.name for other in others if other.table == column.table and not is_text(other, schema)]
    return [name for name in dict.fromkeys(names) if name.lower() != column.name.lower()]


def schema_column(column: exp.Column, schema: Schema) -> Column | None:
    table = table_of(column, schema)
    return schema.find(table, column.name) if table else None


def identifier(name: str) -> exp.Identifier:
    """A name, in quotes where SQLite needs them."""
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and name.upper() not in _RESERVED
    return exp.Identifier(this=name, quoted=not plain)


def rename_one(places: list[tuple[exp.Column, list[str]]], rng: Random) -> bool:
    """Give one of these columns one of its other names; ``False`` where there is none."""
    if not places:
        return False
    column, names = rng.choice(places)
    column.set("this", identifier(rng.choice(names)))
    return True


def predicates(root: exp.Expression, *kinds: type[exp.Expression]) -> list[exp.Expression]:
    """Comparisons and the like in conditions; those that join two tables (column = column) are left out."""
    return [
        node
        for node in root.find_all(*kinds)
        if not (isinstance(node, exp.EQ) and _qualified(node.this) and _qualified(node.expression))
    ]


def join_keys(root: exp.Expression) -> list[exp.EQ]:
    """The equations ``a.x = b.y``, in ON or in WHERE."""
    return [node for node in root.find_all(exp.EQ) if _qualified(node.this) and _qualified(node.expression)]


def _qualified(node: exp.Expression) -> bool:
    return isinstance(node, exp.Column) and bool(node.table)
