"""The demo's questions: about ten kinds, most of them with a bound that a number has to keep."""

from __future__ import annotations

import random
from collections.abc import Callable

from .data import Entity, World

Drawn = tuple[str, str, str]
"""A question, its gold SQL, and its difficulty."""

_OPEN = (("more than", ">"), ("less than", "<"))
_CLOSED = (("at least", ">="), ("at most", "<="))
_CLOSED_SHARE = 0.6
"""How many of the bounds are closed. Those are what the teacher misreads by habit."""


def draw_questions(world: World, count: int, generator: random.Random) -> list[Drawn]:
    """So many different questions about a world, in a random order."""
    found: dict[str, Drawn] = {}
    while len(found) < count:
        drawn = generator.choice(_KINDS)(world, generator)
        found.setdefault(drawn[0], drawn)
    return list(found.values())


def has_closed_bound(question: str) -> bool:
    """Whether a question says "at least" or "at most"."""
    return any(f" {words} " in question for words, _ in _CLOSED)


def _bound(world: World, generator: random.Random) -> tuple[str, str]:
    """A bound in words and as a condition."""
    words, operator = generator.choice(_CLOSED if generator.random() < _CLOSED_SHARE else _OPEN)
    value, column = generator.randint(*world.range), world.child.number
    return f"{words} {value} {column}", f"{column} {operator} {value}"


def _names(entity: Entity) -> str:
    return entity.name.replace("_", " ")


def _list(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    e = world.child
    return (
        f"List the {_names(e)} of every {e.one} with {words}.",
        f"SELECT {e.name} FROM {e.table} WHERE {condition}",
        "simple",
    )


def _list_of_category(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    e, category = world.child, generator.choice(world.categories)
    return (
        f"Which {e.many} of the {e.category} {category} have {words}?",
        f"SELECT {e.name} FROM {e.table} WHERE {e.category} = '{category}' AND {condition}",
        "moderate",
    )


def _count(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    e = world.child
    return f"How many {e.many} have {words}?", f"SELECT COUNT(*) FROM {e.table} WHERE {condition}", "simple"


def _count_of_category(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    e, category = world.child, generator.choice(world.categories)
    return (
        f"How many {e.many} of the {e.category} {category} have {words}?",
        f"SELECT COUNT(*) FROM {e.table} WHERE {e.category} = '{category}' AND {condition}",
        "moderate",
    )


def _per_category(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    e = world.child
    return (
        f"For each {e.category}, how many {e.many} have {words}?",
        f"SELECT {e.category}, COUNT(*) FROM {e.table} WHERE {condition} GROUP BY {e.category}",
        "moderate",
    )


def _joined(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    p, c = world.parent, world.child
    name, _ = generator.choice(world.parents[:-1])  # the last one has no children
    return (
        f"How many {c.many} {world.belongs} {name} have {words}?",
        f"SELECT COUNT(*) FROM {c.table} JOIN {p.table} USING ({world.key}) WHERE {p.name} = '{name}' AND {condition}",
        "challenging",
    )


def _without(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    p, c, key = world.parent, world.child, world.key
    return (
        f"Name the {p.many} without any {c.one} with {words}.",
        f"SELECT {p.name} FROM {p.table} WHERE {key} NOT IN (SELECT {key} FROM {c.table} WHERE {condition})",
        "challenging",
    )


def _different(world: World, generator: random.Random) -> Drawn:
    words, condition = _bound(world, generator)
    p, c = world.parent, world.child
    return (
        f"How many different {p.many} have a {c.one} with {words}?",
        f"SELECT COUNT(DISTINCT {world.key}) FROM {c.table} WHERE {condition}",
        "moderate",
    )


def _top(world: World, generator: random.Random) -> Drawn:
    word, order = generator.choice((("most", "DESC"), ("fewest", "ASC")))
    e, category, count = world.child, generator.choice(world.categories), generator.randint(2, 9)
    return (
        f"Which {count} {e.many} of the {e.category} {category} have the {word} {e.number}?",
        f"SELECT {e.name} FROM {e.table} WHERE {e.category} = '{category}' ORDER BY {e.number} {order}, {e.name} "
        f"LIMIT {count}",
        "challenging",
    )


def _year(world: World, generator: random.Random) -> Drawn:
    word, operator = generator.choice((("before", "<"), ("after", ">")))
    p, year = world.parent, generator.randint(1900, 1999)
    return (
        f"Name the {p.many} with a {p.number.replace('_', ' ')} {word} {year}.",
        f"SELECT {p.name} FROM {p.table} WHERE {p.number} {operator} {year}",
        "simple",
    )


_KINDS: tuple[Callable[[World, random.Random], Drawn], ...] = (
    _list,
    _list_of_category,
    _count,
    _count_of_category,
    _per_category,
    _joined,
    _without,
    _different,
    _top,
    _year,
)
