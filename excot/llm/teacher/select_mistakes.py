"""Mistakes in what is asked for: columns, aggregates, grouping, order and limit."""

from __future__ import annotations

from random import Random

from sqlglot import exp

from . import sites
from .schema import Schema

_OTHER_AGGREGATE: dict[type[exp.Expression], tuple[type[exp.Expression], ...]] = {
    exp.Max: (exp.Min,),
    exp.Min: (exp.Max,),
    exp.Avg: (exp.Sum, exp.Max),
    exp.Sum: (exp.Avg, exp.Count),
    exp.Count: (exp.Sum,),
}


def wrong_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = []
    for select in sites.selects(root):
        taken = {projection.name.lower() for projection in select.expressions}
        for projection in select.expressions:
            for column in sites.real_columns(select, projection, schema):
                if isinstance(column.parent, exp.Count):
                    continue  # COUNT of another column is the same count, but for NULLs
                names = sites.alternatives(column, schema, same_type=isinstance(column.parent, exp.AggFunc))
                if fresh := [name for name in names if name.lower() not in taken]:
                    places.append((column, fresh))
    return sites.rename_one(places, rng)


def extra_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    select = _main_select(root)
    if select is None or select.is_star:
        return False
    shown = {projection.sql() for projection in select.expressions}
    places = []
    for column in select.find_all(exp.Column):
        if column.find_ancestor(exp.Select) is not select or isinstance(column.this, exp.Star):
            continue
        if sites.is_text(column, schema):
            continue
        for name in [column.name, *sites.alternatives(column, schema)]:
            extra = exp.Column(this=sites.identifier(name), table=column.args.get("table"))
            if extra.sql() not in shown:
                places.append(extra.copy())
    for alias, source in sites.sources(select).items() if not places else ():
        qualifier = sites.identifier(source.alias or alias) if len(sites.sources(select)) > 1 else None
        places += [exp.Column(this=sites.identifier(c.name), table=qualifier) for c in schema.of(source.name)]
    if not places:
        return False
    at = 0 if rng.random() < 0.3 else len(select.expressions)
    select.expressions.insert(at, rng.choice(places))
    select.set("expressions", select.expressions)
    return True


def missing_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    select = _main_select(root)
    if select is None or len(select.expressions) < 2:
        return False
    rng.choice(select.expressions).pop()
    return True


def swapped_columns(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    select = _main_select(root)
    if select is None or len(select.expressions) < 2:
        return False
    expressions = list(select.expressions)
    at = rng.randrange(len(expressions) - 1)
    expressions[at : at + 2] = reversed(expressions[at : at + 2])
    select.set("expressions", expressions)
    return True


def invented_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """A name that the schema does not have, as models guess them (``singer_name``, ``year_id``): an SQL error."""
    places = []
    for select in sites.selects(root):
        for column in sites.real_columns(select, select, schema):
            table = sites.table_of(column, schema)
            guesses = [f"{table}_{column.name}" if table else "", f"{column.name}_id", f"{column.name}_name"]
            fresh = [name for name in guesses if name.isidentifier() and not schema.has_column(name)]
            if fresh:
                places.append((column, fresh))
    return sites.rename_one(places, rng)


def wrong_aggregate(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = []
    for node in root.find_all(*_OTHER_AGGREGATE):
        column = node.this
        if not isinstance(column, exp.Column) or isinstance(column.this, exp.Star):
            continue  # there is no SUM(*), and COUNT(DISTINCT x) has its own mistake
        if isinstance(node, exp.Count):
            known = sites.schema_column(column, schema)
            if known is None or not known.numeric:
                continue
        places.append(node)
    if not places:
        return False
    node = rng.choice(places)
    node.replace(rng.choice(_OTHER_AGGREGATE[type(node)])(this=node.this.copy()))
    return True


def forgot_to_aggregate(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    select = _main_select(root)
    if select is None:
        return False
    alone = len(select.expressions) == 1 and not select.args.get("group")
    places = []
    for projection in select.expressions:
        node = projection.unalias()
        if isinstance(node, (exp.Count, exp.Sum, exp.Avg, exp.Max, exp.Min)):
            inner = node.this
            if isinstance(inner, exp.Distinct) and inner.expressions:
                inner = inner.expressions[0]
            if inner is not None and (alone or not isinstance(inner, exp.Star)):
                places.append((node, inner))
    if not places:
        return False
    node, inner = rng.choice(places)
    node.replace(inner.copy())
    return True


def missing_distinct(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [node for node in root.find_all(exp.Distinct) if isinstance(node.parent, exp.Select) or node.expressions]
    if not places:
        return False
    node = rng.choice(places)
    if isinstance(node.parent, exp.Select):
        node.pop()
    else:
        node.replace(node.expressions[0].copy())
    return True


def missing_group(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [group for group in root.find_all(exp.Group) if group.expressions]
    if not places:
        return False
    group = rng.choice(places)
    if len(group.expressions) > 1:
        rng.choice(group.expressions).pop()
        return True
    select = group.parent
    aggregated = any(projection.find(exp.AggFunc) for projection in select.expressions)
    if select.args.get("having") or not aggregated:
        return False  # SQLite refuses HAVING, or an aggregate in ORDER BY alone, where nothing is grouped
    group.pop()
    return True


def changed_having(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    if not (places := list(root.find_all(exp.Having))):
        return False
    having = rng.choice(places)
    numbers = [node for node in having.find_all(exp.Literal) if not node.is_string and node.name.isdigit()]
    if numbers and rng.random() < 0.6:
        number = rng.choice(numbers)
        number.replace(exp.Literal.number(int(number.name) + rng.choice((1, 2))))
    else:
        having.pop()
    return True


def wrong_top_direction(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    """The smallest for the largest: the order decides which rows a LIMIT keeps."""
    return _flip(root, rng, limited=True)


def wrong_direction(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    return _flip(root, rng, limited=False)


def wrong_order_column(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = []
    for select in sites.selects(root):
        order = select.args.get("order")
        if order and select.args.get("limit"):
            columns = sites.real_columns(select, order, schema)
            places += [(column, sites.alternatives(column, schema)) for column in columns]
    return sites.rename_one([(column, names) for column, names in places if names], rng)


def wrong_limit(root: exp.Expression, schema: Schema, rng: Random) -> bool:
    places = [limit for limit in root.find_all(exp.Limit) if limit.expression and limit.expression.name.isdigit()]
    if not places:
        return False
    limit = rng.choice(places)
    count = int(limit.expression.name)
    if rng.random() < 0.4 and not limit.parent.args.get("offset"):
        limit.pop()
    else:
        choices = [other for other in (1, 3, 5, 10, count + 1) if other != count]
        limit.set("expression", exp.Literal.number(rng.choice(choices)))
    return True


def _main_select(root: exp.Expression) -> exp.Select | None:
    """The outermost SELECT; none where a set operation would refuse another number of columns."""
    query = root.this
    return query if isinstance(query, exp.Select) else None


def _flip(root: exp.Expression, rng: Random, limited: bool) -> bool:
    places = [
        ordered
        for order in root.find_all(exp.Order)
        if order.parent is not None and bool(order.parent.args.get("limit")) == limited
        for ordered in order.expressions[:1]
    ]
    if not places:
        return False
    ordered = rng.choice(places)
    desc = not ordered.args.get("desc")
    ordered.set("desc", desc)
    ordered.set("nulls_first", not desc)  # SQLite's own place for NULLs, so that no NULLS FIRST is written
    return True
