"""Mistakes in which rows are read and kept: tables, joins, conditions, values and set operations."""

from __future__ import annotations

from random import Random

from sqlglot import exp

from . import sites
from .schema import Schema

_TURNED: dict[type[exp.Expression], type[exp.Expression]] = {
    exp.GT: exp.LT,
    exp.LT: exp.GT,
    exp.GTE: exp.LTE,
    exp.LTE: exp.GTE,
    exp.EQ: exp.NEQ,
    exp.NEQ: exp.EQ,
}
_STRICTNESS: dict[type[exp.Expression], type[exp.Expression]] = {
    exp.GT: exp.GTE,
    exp.GTE: exp.GT,
    exp.LT: exp.LTE,
    exp.LTE: exp.LT,
}
_SET_OPERATIONS = (exp.Union, exp.Intersect, exp.Except)


def dropped_condition(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = list(root.find_all(exp.Where))
    if not places:
        return False
    where = rng.choice(places)
    conjunctions = [node for node in where.find_all(exp.And) if node.find_ancestor(exp.Where) is where]
    if conjunctions:
        node = rng.choice(conjunctions)
        node.replace(rng.choice((node.this, node.expression)).copy())
    else:
        where.pop()
    return True


def wrong_condition_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = []
    for select in sites.selects(root):
        if where := select.args.get("where"):
            for column in sites.real_columns(select, where, schema):
                if names := sites.alternatives(column, schema, same_type=True):
                    places.append((column, names))
    return sites.rename_one(places, rng)


def turned_comparison(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    return _other_comparison(root, rng, _TURNED)


def strictness(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    return _other_comparison(root, rng, _STRICTNESS)


def changed_value(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """Another value of the column, a wrong spelling of the right one, or another number."""
    places = []
    for node in sites.predicates(root, *sites.COMPARISONS, exp.Like):
        value = node.expression
        text = value.name if isinstance(value, exp.Literal) or sites.is_text(value, schema) else None
        if text is None or node.find_ancestor(exp.Having):
            continue
        number = isinstance(value, exp.Literal) and not value.is_string
        known = sites.schema_column(node.this, schema) if isinstance(node.this, exp.Column) else None
        samples = [sample.strip("'").replace("''", "'") for sample in known.samples] if known else []
        others = [sample for sample in samples if sample != text and sample.lstrip("-").isdigit() == number]
        if isinstance(node, exp.Like):
            others = [text.strip("%")] if text.strip("%") != text else [f"%{text}%"]
        elif number and text.isdigit():
            others += [str(int(text) + 1)] if isinstance(node, (exp.EQ, exp.NEQ)) else [text + "0"]
        elif not number:
            others += [other for other in (text.lower(), text.upper(), text.title()) if other != text]
        if others:
            places.append((value, others))
    if not places:
        return False
    value, others = rng.choice(places)
    other = rng.choice(others)
    if isinstance(value, exp.Column):
        value.this.set("this", other)
    else:
        value.set("this", other)
    return True


def lost_not(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [*root.find_all(exp.Not), *(node for node in root.find_all(exp.Like) if node.args.get("negate"))]
    if not places:
        return False
    node = rng.choice(places)
    if isinstance(node, exp.Not):
        node.replace(node.this.copy())
    else:
        node.set("negate", None)
    return True


def and_for_or(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [
        node
        for node in root.find_all(exp.And, exp.Or)
        if not isinstance(node.parent, exp.Connector) and node.find_ancestor(exp.Where, exp.Join, exp.Having)
    ]
    if not places:
        return False
    node = rng.choice(places)
    other = exp.Or if isinstance(node, exp.And) else exp.And
    node.replace(other(this=_wrapped(node.this), expression=_wrapped(node.expression)))
    return True


def dropped_join(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """Forget a table of which no column is used but in join conditions."""
    places = []
    for select in sites.selects(root):
        joins = select.args.get("joins") or []
        clause = select.args.get("from_")
        conditions = [join.args["on"] for join in joins if join.args.get("on")]
        joining = {id(column) for on in conditions for column in on.find_all(exp.Column)}
        columns = [column for column in select.find_all(exp.Column) if id(column) not in joining]
        if any(not column.table and not sites.is_text(column, schema) for column in columns):
            continue  # without its table it might still be found, or not: nobody can tell here
        used = {column.table.lower() for column in columns if column.table}
        for join in joins:
            alias = join.this.alias_or_name.lower()
            needed = {
                c.table.lower() for other in joins if other is not join for c in other.find_all(exp.Column) if c.table
            }
            if alias not in used | needed:
                places.append((select, join))
        if len(joins) == 1 and clause and clause.this.alias_or_name.lower() not in used:
            places.append((select, clause))
    if not places:
        return False
    select, node = rng.choice(places)
    if isinstance(node, exp.Join):
        node.pop()
    else:
        node.set("this", select.args["joins"][0].this.copy())
        select.set("joins", [])
    return True


def wrong_join_key(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = []
    for equation in sites.join_keys(root):
        for column in (equation.this, equation.expression):
            if names := sites.alternatives(column, schema, same_type=True):
                places.append((column, names))
    return sites.rename_one(places, rng)


def left_join(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [join for join in root.find_all(exp.Join) if join.args.get("on") and not join.args.get("side")]
    if not places:
        return False
    join = rng.choice(places)
    join.set("kind", None)
    join.set("side", "LEFT")
    return True


def wrong_table(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """Read another table that has columns of these names (for ``COUNT(*)``, any other table)."""
    places = []
    for select in sites.selects(root):
        found = sites.sources(select)
        if len(found) != 1 or not isinstance(table := next(iter(found.values())), exp.Table):
            continue
        if table.name.lower() not in schema.names:
            continue
        used = {column.name for column in sites.real_columns(select, select, schema)}
        fits = [
            name
            for key, name in schema.names.items()
            if key != table.name.lower() and all(schema.find(name, column) for column in used)
        ]
        if fits:
            places.append((table, fits))
    if not places:
        return False
    table, names = rng.choice(places)
    table.set("this", sites.identifier(rng.choice(names)))
    return True


def wrong_set_operation(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = list(root.find_all(*_SET_OPERATIONS))
    if not places:
        return False
    node = rng.choice(places)
    other = rng.choice([kind for kind in _SET_OPERATIONS if not isinstance(node, kind)])
    args = {key: value for key, value in node.args.items() if value is not None}
    node.replace(other(**{**args, "distinct": True}))
    return True


def dropped_half(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """One side of a set operation; rarely the second, which EXCEPT and INTERSECT put their condition in."""
    places = [node for node in root.find_all(*_SET_OPERATIONS) if not node.args.get("with_")]
    if not places:
        return False
    node = rng.choice(places)
    node.replace((node.this if rng.random() < 0.8 else node.expression).copy())
    return True


def _other_comparison(
    root: exp.Expression, rng: Random, others: dict[type[exp.Expression], type[exp.Expression]]
) -> bool:
    places = sites.predicates(root, *others)
    if not places:
        return False
    node = rng.choice(places)
    node.replace(others[type(node)](this=node.this.copy(), expression=node.expression.copy()))
    return True


def _wrapped(node: exp.Expression) -> exp.Expression:
    copy = node.copy()
    return exp.Paren(this=copy) if isinstance(node, exp.Connector) else copy
