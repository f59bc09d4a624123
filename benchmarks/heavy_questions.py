"""Questions to the large shop with 32 candidates each, as a model in training gives them.

A question is a template with values drawn from a seed. Its candidates are written again and again in the same words or
in other spellings, and are right, wrong in the ways that models are wrong, broken, or, in every third question, do not
end in any time that one would wait.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .heavy_data import CATEGORIES, CHANNELS, CITIES, SEGMENTS, SIZES, WORDS

QUESTIONS, CANDIDATES = 200, 32
RUNAWAY_EVERY, RUNAWAYS = 3, 3
"""Every third question has a runaway, written three times: 3% of all candidates."""

_SHARES = {"right": 0.55, "wrong": 0.35, "broken": 0.10}


class Question(NamedTuple):
    """``kinds`` says of each candidate what it was written as: right, wrong, broken, runaway."""

    gold: str
    candidates: list[str]
    kinds: list[str]


class Template(NamedTuple):
    """Statements with places for values; the first that is right is the gold.

    ``right`` is what the rule of sets calls so. Most questions need an index or a small table: ``weight`` is how much
    more often they are asked than those that read a large table to its end.
    """

    right: list[str]
    wrong: list[str]
    runaway: list[str]
    weight: int = 5


def make_questions(count: int = QUESTIONS, scale: float = 1.0, seed: int = 0) -> list[Question]:
    """As many questions to the database of that scale, whose keys they name; ``seed`` is theirs alone."""
    chance = random.Random(seed)
    weights = [template.weight for template in TEMPLATES]
    return [
        _question(template, at, _values(chance, scale), chance)
        for at, template in enumerate(chance.choices(TEMPLATES, weights, k=count))
    ]


def _question(template: Template, at: int, values: dict[str, Any], chance: random.Random) -> Question:
    gold = template.right[0].format(**values)
    kinds = chance.choices(list(_SHARES), list(_SHARES.values()), k=CANDIDATES)
    if at % RUNAWAY_EVERY == 0:
        for place in chance.sample(range(CANDIDATES), RUNAWAYS):
            kinds[place] = "runaway"
    runaway = _spelled(chance.choice(template.runaway).format(**values), chance)
    forms = {"right": template.right, "wrong": template.wrong, "broken": template.right}
    candidates = []
    for kind in kinds:
        if kind == "runaway":
            candidates.append(runaway)
            continue
        # The first form is the one that most answers have, as one is in the samples of a real model.
        form = forms[kind][min(int(chance.expovariate(0.9)), len(forms[kind]) - 1)]
        sql = form.format(**values)
        candidates.append(_broken(sql, chance) if kind == "broken" else _spelled(sql, chance))
    return Question(gold, candidates, kinds)


def _values(chance: random.Random, scale: float) -> dict[str, Any]:
    """What stands in the places of a template; ranges of keys are such that an index finds a few thousand rows."""
    customers, products = round(SIZES["customer"] * scale), round(SIZES["product"] * scale)
    customer, product, day = chance.randrange(customers), chance.randrange(products), chance.randrange(2500)
    return {
        "city": chance.choice(CITIES),
        "segment": chance.choice(SEGMENTS),
        "category": chance.choice(CATEGORIES),
        "channel": chance.choice(CHANNELS),
        "word": chance.choice(WORDS),
        "price": chance.randrange(50, 450),
        "customer": customer,
        "customers_after": customer + max(1, customers // 500),
        "product": product,
        "products_after": product + max(1, products // 100),
        "day": day,
        "days_after": day + 30,
    }


def _spelled(sql: str, chance: random.Random) -> str:
    return chance.choices(_SPELLINGS, [6, 2, 1, 1])[0](sql)


_SPELLINGS: list[Callable[[str], str]] = [
    lambda sql: sql,
    lambda sql: sql + ";",
    lambda sql: re.sub(r"\b[A-Z]{2,}\b", lambda word: word.group().lower(), sql),
    lambda sql: re.sub(r" (?=(?:FROM|WHERE|GROUP BY|ORDER BY) )", "\n", sql),
]


def _broken(sql: str, chance: random.Random) -> str:
    """A column or table that is not there, or a bracket too few."""
    breaks = [("customer_id", "client_id"), ("id", "ident"), ("FROM ", "FROM the_"), ("SELECT ", "SELECT (")]
    old, new = chance.choice(breaks)
    broken = re.sub(rf"\b{old}", new, sql, count=1)
    return broken if broken != sql else sql.replace("SELECT ", "SELECT (", 1)


TEMPLATES = [
    Template(  # a range of an index, then the rows
        [
            "SELECT SUM(amount) FROM purchase WHERE customer_id BETWEEN {customer} AND {customers_after}",
            "SELECT SUM(p.amount) FROM purchase AS p WHERE p.customer_id BETWEEN {customer} AND {customers_after}",
            "SELECT SUM(p.amount) FROM purchase AS p JOIN customer AS c ON p.customer_id = c.id "
            "WHERE c.id BETWEEN {customer} AND {customers_after}",
        ],
        [
            "SELECT SUM(amount) FROM purchase WHERE customer_id > {customer} AND customer_id < {customers_after}",
            "SELECT AVG(amount) FROM purchase WHERE customer_id BETWEEN {customer} AND {customers_after}",
            "SELECT customer_id, SUM(amount) FROM purchase WHERE customer_id BETWEEN {customer} AND {customers_after} "
            "GROUP BY customer_id",
        ],
        [
            "SELECT SUM(p.amount) FROM purchase AS p, customer AS c "
            "WHERE c.id BETWEEN {customer} AND {customers_after}",
        ],
    ),
    Template(  # few rows of a wide table
        [
            "SELECT product_id, AVG(stars) FROM review WHERE product_id BETWEEN {product} AND {products_after} "
            "GROUP BY product_id",
            "SELECT r.product_id, AVG(r.stars) FROM review AS r "
            "WHERE r.product_id >= {product} AND r.product_id <= {products_after} GROUP BY r.product_id",
            "SELECT p.id, AVG(r.stars) FROM product AS p JOIN review AS r ON r.product_id = p.id "
            "WHERE p.id BETWEEN {product} AND {products_after} GROUP BY p.id",
        ],
        [
            "SELECT product_id, COUNT(stars) FROM review WHERE product_id BETWEEN {product} AND {products_after} "
            "GROUP BY product_id",
            "SELECT AVG(stars) FROM review WHERE product_id BETWEEN {product} AND {products_after}",
            "SELECT p.name, AVG(r.stars) FROM product AS p JOIN review AS r ON r.product_id = p.id "
            "WHERE p.id BETWEEN {product} AND {products_after} GROUP BY p.name",
        ],
        [
            "SELECT p.id, AVG(r.stars) FROM product AS p JOIN review AS r "
            "WHERE p.id BETWEEN {product} AND {products_after} GROUP BY p.id",
            "SELECT p.id, (SELECT AVG(stars) FROM review, purchase WHERE review.product_id = p.id) FROM product AS p",
        ],
    ),
    Template(  # a scan of a table in the middle, thousands of rows in the result
        [
            "SELECT name FROM product WHERE category = '{category}' AND price > {price}",
            "SELECT p.name FROM product AS p WHERE p.category = '{category}' AND p.price > {price}",
            "SELECT DISTINCT name FROM product WHERE price > {price} AND category = '{category}'",
        ],
        [
            "SELECT name FROM product WHERE category = '{category}' AND price < {price}",
            "SELECT name, price FROM product WHERE category = '{category}' AND price > {price}",
            "SELECT name FROM product WHERE price > {price}",
        ],
        ["SELECT p.name FROM product AS p, product AS q WHERE p.category = '{category}' AND q.price > {price}"],
    ),
    Template(  # a join by way of two indexes, sorted
        [
            "SELECT c.name FROM customer AS c JOIN purchase AS p ON p.customer_id = c.id WHERE c.city = '{city}' "
            "AND c.segment = '{segment}' GROUP BY c.id ORDER BY SUM(p.amount) DESC LIMIT 10",
            "SELECT T1.name FROM customer AS T1 JOIN purchase AS T2 ON T1.id = T2.customer_id "
            "WHERE T1.segment = '{segment}' AND T1.city = '{city}' "
            "GROUP BY T1.id ORDER BY SUM(T2.amount) DESC LIMIT 10",
            "SELECT name FROM customer WHERE city = '{city}' AND segment = '{segment}' "
            "ORDER BY (SELECT SUM(amount) FROM purchase WHERE customer_id = customer.id) DESC LIMIT 10",
        ],
        [
            "SELECT c.name FROM customer AS c JOIN purchase AS p ON p.customer_id = c.id WHERE c.city = '{city}' "
            "AND c.segment = '{segment}' GROUP BY c.id ORDER BY COUNT(*) DESC LIMIT 10",
            "SELECT c.name FROM customer AS c JOIN purchase AS p ON p.customer_id = c.id WHERE c.city = '{city}' "
            "AND c.segment = '{segment}' ORDER BY p.amount DESC LIMIT 10",
            "SELECT c.name, SUM(p.amount) FROM customer AS c JOIN purchase AS p ON p.customer_id = c.id "
            "WHERE c.city = '{city}' AND c.segment = '{segment}' GROUP BY c.id ORDER BY 2 DESC LIMIT 10",
        ],
        [
            "SELECT c.name FROM customer AS c, purchase AS p WHERE c.city = '{city}' "
            "GROUP BY c.id ORDER BY SUM(p.amount) DESC LIMIT 10",
        ],
    ),
    Template(  # a scan with groups
        [
            "SELECT city, COUNT(*) FROM customer WHERE segment = '{segment}' GROUP BY city",
            "SELECT c.city, COUNT(c.id) FROM customer AS c WHERE c.segment = '{segment}' GROUP BY c.city",
            "SELECT DISTINCT city, COUNT(*) OVER (PARTITION BY city) FROM customer WHERE segment = '{segment}'",
        ],
        [
            "SELECT COUNT(*), city FROM customer WHERE segment = '{segment}' GROUP BY city",
            "SELECT city, COUNT(*) FROM customer GROUP BY city",
            "SELECT city, COUNT(DISTINCT region) FROM customer WHERE segment = '{segment}' GROUP BY city",
        ],
        [
            "SELECT a.city, COUNT(*) FROM customer AS a, customer AS b WHERE a.segment = '{segment}' GROUP BY a.city",
            "WITH RECURSIVE step (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM step) "
            "SELECT city, COUNT(*) FROM customer, step WHERE segment = '{segment}' GROUP BY city",
        ],
        weight=1,
    ),
    Template(  # few values; without DISTINCT a join repeats them without end, and each is one of the gold's
        [
            "SELECT DISTINCT region FROM customer WHERE segment = '{segment}'",
            "SELECT region FROM customer WHERE segment = '{segment}' GROUP BY region",
            "SELECT region FROM customer WHERE segment = '{segment}'",
        ],
        [
            "SELECT DISTINCT city FROM customer WHERE segment = '{segment}'",
            "SELECT DISTINCT region, segment FROM customer WHERE segment = '{segment}'",
            "SELECT COUNT(DISTINCT region) FROM customer WHERE segment = '{segment}'",
        ],
        [
            "SELECT a.region FROM customer AS a JOIN customer AS b ON a.city = b.city WHERE a.segment = '{segment}'",
            "SELECT c.region FROM customer AS c, product AS p WHERE c.segment = '{segment}'",
        ],
    ),
    Template(  # a window over every row
        [
            "SELECT name FROM (SELECT name, RANK() OVER (PARTITION BY category ORDER BY price DESC) AS place "
            "FROM product WHERE price BETWEEN {price} AND {price} + 50) WHERE place <= 3",
            "WITH placed AS (SELECT name, RANK() OVER (PARTITION BY category ORDER BY price DESC) AS place "
            "FROM product WHERE price BETWEEN {price} AND {price} + 50) SELECT name FROM placed WHERE place < 4",
        ],
        [
            "SELECT name FROM product WHERE price BETWEEN {price} AND {price} + 50 ORDER BY price DESC LIMIT 3",
            "SELECT name FROM (SELECT name, RANK() OVER (PARTITION BY category ORDER BY price) AS place "
            "FROM product WHERE price BETWEEN {price} AND {price} + 50) WHERE place <= 3",
            "SELECT name, place FROM (SELECT name, RANK() OVER (PARTITION BY category ORDER BY price DESC) AS place "
            "FROM product WHERE price BETWEEN {price} AND {price} + 50) WHERE place <= 3",
        ],
        [
            "SELECT p.name FROM product AS p WHERE (SELECT COUNT(*) FROM product AS q "
            "WHERE q.category = p.category AND q.price > p.price AND q.price < {price}) < 3",
        ],
    ),
    Template(  # all rows of the largest table
        [
            "SELECT channel, SUM(amount) FROM purchase WHERE day BETWEEN {day} AND {days_after} GROUP BY channel",
            "SELECT channel, SUM(amount) FROM purchase WHERE day >= {day} AND day <= {days_after} GROUP BY channel",
        ],
        [
            "SELECT channel, SUM(amount) FROM purchase WHERE day > {day} AND day < {days_after} GROUP BY channel",
            "SELECT channel, COUNT(*) FROM purchase WHERE day BETWEEN {day} AND {days_after} GROUP BY channel",
        ],
        [
            "SELECT p.channel, SUM(p.amount) FROM purchase AS p, visit AS v "
            "WHERE p.day BETWEEN {day} AND {days_after} GROUP BY p.channel",
            "WITH RECURSIVE d (n) AS (SELECT {day} UNION ALL SELECT n + 1 FROM d WHERE n <> {day}) "
            "SELECT channel, SUM(amount) FROM purchase JOIN d ON day = n GROUP BY channel",
        ],
        weight=1,
    ),
    Template(  # as before, with an index: who came by way of one customer
        [
            "WITH RECURSIVE chain (id) AS (SELECT {customers_after} UNION SELECT c.referred_by FROM customer AS c "
            "JOIN chain ON c.id = chain.id WHERE c.referred_by IS NOT NULL) SELECT id FROM chain",
            "WITH RECURSIVE chain (id) AS (SELECT {customers_after} UNION ALL SELECT c.referred_by "
            "FROM customer AS c, chain WHERE c.id = chain.id AND c.referred_by > 0) SELECT id FROM chain",
        ],
        [
            "SELECT referred_by FROM customer WHERE id = {customers_after}",
            "SELECT id FROM customer WHERE referred_by = {customers_after}",
        ],
        [
            "WITH RECURSIVE chain (id) AS (SELECT {customers_after} UNION ALL SELECT c.id FROM customer AS c "
            "JOIN chain ON c.id = chain.id) SELECT id FROM chain",
            "WITH RECURSIVE chain (id) AS (SELECT {customers_after} UNION ALL SELECT c.referred_by "
            "FROM customer AS c, chain WHERE c.referred_by IS NOT NULL) SELECT COUNT(*) FROM chain",
        ],
    ),
    Template(  # a search in wide text; what forgets its condition returns nearly a million wide rows
        [
            "SELECT COUNT(*) FROM review WHERE stars = 1 AND body LIKE '%{word}%'",
            "SELECT COUNT(id) FROM review WHERE body LIKE '%{word}%' AND stars = 1",
        ],
        [
            "SELECT COUNT(*) FROM review WHERE stars = 1 AND body LIKE '{word}%'",
            "SELECT id FROM review WHERE stars = 1 AND body LIKE '%{word}%'",
            "SELECT body FROM review",
        ],
        ["SELECT COUNT(*) FROM review AS r, product AS p WHERE r.stars = 1 AND p.description LIKE '%{word}%'"],
        weight=1,
    ),
    Template(  # few values again; without DISTINCT most of a million rows, or no end of them, and all are the gold's
        [
            "SELECT DISTINCT status FROM purchase WHERE day BETWEEN {day} AND {days_after}",
            "SELECT status FROM purchase WHERE day BETWEEN {day} AND {days_after} GROUP BY status",
            "SELECT status FROM purchase WHERE quantity < 3",
        ],
        [
            "SELECT DISTINCT channel FROM purchase WHERE day BETWEEN {day} AND {days_after}",
            "SELECT DISTINCT status FROM purchase WHERE day BETWEEN {day} AND {days_after} AND status <> 'lost'",
            "SELECT channel FROM purchase WHERE quantity < 3",
        ],
        ["SELECT p.status FROM purchase AS p JOIN product AS q WHERE p.day BETWEEN {day} AND {days_after}"],
        weight=1,
    ),
    Template(  # those without: a set that is excluded
        [
            "SELECT id FROM customer WHERE city = '{city}' AND id NOT IN "
            "(SELECT customer_id FROM purchase WHERE channel = '{channel}' AND day > {day})",
            "SELECT c.id FROM customer AS c WHERE c.city = '{city}' AND NOT EXISTS "
            "(SELECT 1 FROM purchase AS p WHERE p.customer_id = c.id AND p.channel = '{channel}' AND p.day > {day})",
        ],
        [
            "SELECT DISTINCT c.id FROM customer AS c JOIN purchase AS p ON p.customer_id = c.id "
            "WHERE c.city = '{city}' AND p.channel <> '{channel}' AND p.day > {day}",
            "SELECT id FROM customer WHERE city = '{city}'",
        ],
        [
            "SELECT c.id FROM customer AS c WHERE c.city = '{city}' AND NOT EXISTS "
            "(SELECT 1 FROM visit AS v, purchase AS p WHERE v.customer_id = c.id AND p.channel = 'none')",
        ],
        weight=1,
    ),
]
