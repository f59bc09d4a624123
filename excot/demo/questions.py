"""The demo's questions: about ten kinds, most of them with a bound that a number has to keep."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from .data import World

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


def _bounded(template: Drawn, world: World, generator: random.Random) -> Drawn:
    """A template of `_BOUNDED` filled in."""
    words, operator = generator.choice(_CLOSED if generator.random() < _CLOSED_SHARE else _OPEN)
    value, number = generator.randint(*world.range), world.child.number
    facts = {
        "w": world,
        "p": world.parent,
        "c": world.child,
        "names": world.child.name.replace("_", " "),
        "bound": f"{words} {value} {number}",
        "condition": f"{number} {operator} {value}",
    }
    question, sql, difficulty = template
    if "{category}" in question:
        facts["category"] = generator.choice(world.categories)
    if "{parent}" in question:
        facts["parent"] = generator.choice(world.parents[:-1])[0]  # the last one has no children
    return question.format(**facts), sql.format(**facts), difficulty


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


_BOUNDED = (
    (
        "List the {names} of every {c.one} with {bound}.",
        "SELECT {c.name} FROM {c.table} WHERE {condition}",
        "simple",
    ),
    (
        "Which {c.many} of the {c.category} {category} have {bound}?",
        "SELECT {c.name} FROM {c.table} WHERE {c.category} = '{category}' AND {condition}",
        "moderate",
    ),
    (
        "How many {c.many} have {bound}?",
        "SELECT COUNT(*) FROM {c.table} WHERE {condition}",
        "simple",
    ),
    (
        "How many {c.many} of the {c.category} {category} have {bound}?",
        "SELECT COUNT(*) FROM {c.table} WHERE {c.category} = '{category}' AND {condition}",
        "moderate",
    ),
    (
        "For each {c.category}, how many {c.many} have {bound}?",
        "SELECT {c.category}, COUNT(*) FROM {c.table} WHERE {condition} GROUP BY {c.category}",
        "moderate",
    ),
    (
        "How many {c.many} {w.belongs} {parent} have {bound}?",
        "SELECT COUNT(*) FROM {c.table} JOIN {p.table} USING ({w.key}) WHERE {p.name} = '{parent}' AND {condition}",
        "challenging",
    ),
    (
        "Name the {p.many} without any {c.one} with {bound}.",
        "SELECT {p.name} FROM {p.table} WHERE {w.key} NOT IN (SELECT {w.key} FROM {c.table} WHERE {condition})",
        "challenging",
    ),
    (
        "How many different {p.many} have a {c.one} with {bound}?",
        "SELECT COUNT(DISTINCT {w.key}) FROM {c.table} WHERE {condition}",
        "moderate",
    ),
)
"""Of the world, its parent and its child: a question with a bound, its gold SQL, and its difficulty."""

_KINDS: tuple[Callable[[World, random.Random], Drawn], ...] = (
    *(partial(_bounded, template) for template in _BOUNDED),
    _top,
    _year,
)
