"""Statements that want all the time or all the memory there is, each with sizes at random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"


def size(random: Random, most: int) -> int:
    """Small sizes as often as large ones."""
    return int(most ** random.random())


def _nested(random: Random, table: str) -> str:
    count = size(random, 20_000)
    left, right = random.choice(
        [("(", ")"), ("CASE WHEN 1 THEN ", " END"), ("(SELECT ", ")"), ("NOT ", ""), ("- ", ""), ("abs(", ")")]
    )
    return f"SELECT {left * count}1{right * count} FROM {table}"


def _many(random: Random, table: str) -> str:
    count = size(random, 20_000)
    return random.choice(
        [
            f"SELECT {', '.join(['1'] * count)} FROM {table}",
            f"SELECT * FROM {', '.join([table] * (1 + count % 70))}",
            f"SELECT 1{' UNION SELECT 2' * count}",
            f"SELECT rowid FROM {table}{' EXCEPT SELECT 3' * (count % 600)}",
            f"SELECT 1{' + 1' * count}",
            f"SELECT 1{' OR 1 = 2' * count} FROM {table}",
            f"SELECT * FROM {table} WHERE 1 IN ({', '.join(map(str, range(count * 5)))})",
            f"SELECT coalesce({', '.join(['NULL'] * (count % 300))})",
            f"VALUES {', '.join(['(1, 2)'] * count)}",
            f"SELECT * FROM {table} ORDER BY {', '.join(['1'] * count)}",
            f"SELECT * FROM {'(SELECT * FROM ' * (count % 200)}{table}{')' * (count % 200)}",
        ]
    )  # fmt: skip


def _crossed(random: Random, table: str) -> str:
    tables = ", ".join(f"{table} t{number}" for number in range(random.randrange(3, 9)))
    window = "sum(t0.rowid) OVER (ORDER BY t1.rowid)"
    what = random.choice(["count(*)", "*", "t0.rowid", "group_concat(t1.rowid)", window, "DISTINCT t0.rowid"])
    end = random.choice(["", "ORDER BY random()", "WHERE t0.rowid < 0", "GROUP BY 1"])
    return f"SELECT {what} FROM {tables} {end}"


def _endless(random: Random, table: str) -> str:
    return random.choice(
        [
            f"{FOREVER} SELECT count(*) FROM c",
            f"{FOREVER} SELECT x FROM c ORDER BY -x",
            f"{FOREVER} SELECT x, zeroblob(x) FROM c",
            f"{FOREVER} SELECT max(x) OVER (ORDER BY -x) FROM c",
            f"{FOREVER} SELECT * FROM c, {table}",
            f"{FOREVER} SELECT x FROM c GROUP BY x",
            f"WITH RECURSIVE c(x) AS (SELECT 'a' UNION ALL SELECT x || x FROM c) SELECT length(x) FROM c, {table}",
            "WITH RECURSIVE c(x, y) AS (SELECT 1, 1 UNION SELECT x + 1, y * 2 FROM c ORDER BY 1 DESC) SELECT y FROM c",
        ]
    )  # fmt: skip


def _large(random: Random, table: str) -> str:
    count = size(random, 3_000_000_000)
    value = random.choice(
        [
            f"zeroblob({count})",
            f"randomblob({count})",
            f"hex(zeroblob({count}))",
            f"printf('%{count}d', 1)",
            f"printf('%.{count}f', 1)",
            f"printf('%.*c', {count}, 'x')",
            f"printf('%-{count}s|%{count}x', 'a', 1)",
            f"replace(hex(zeroblob({count % 100_000})), '0', hex(zeroblob({count % 7_000})))",
            f"quote(zeroblob({count % 5_000_000}))",
            f"json_array(hex(zeroblob({count % 3_000_000})), 1)",
            f"upper(hex(zeroblob({count % 3_000_000})) || char(128512))",
            f"CAST(zeroblob({count % 5_000_000}) AS TEXT)",
            f"trim(hex(zeroblob({count % 50_000})), hex(zeroblob({count % 9_000})))",
        ]
    )
    columns = ", ".join([value] * random.choice([1, 1, 1, 3, 40]))
    return random.choice(
        [
            f"SELECT {columns}",
            f"SELECT {columns} FROM {table}",
            f"SELECT group_concat({value}) FROM {table}",
            f"SELECT DISTINCT {value} FROM {table}, {table} AS b",
            f"SELECT {value} || b.rowid AS x FROM {table} AS b ORDER BY x",
            f"SELECT {', '.join(['v'] * random.choice([2, 30, 500]))} FROM (SELECT {value} AS v LIMIT 1)",
            f"SELECT max({value}) OVER (ORDER BY 1 ROWS 9 PRECEDING) FROM {table}",
            f"SELECT length({value}), count(*) FROM {table} GROUP BY {value}",
        ]
    )


def _patterns(random: Random, table: str) -> str:
    text, pattern = size(random, 30_000), size(random, 30_000)
    return random.choice(
        [
            f"SELECT '{'a' * text}' LIKE '{'%a' * pattern}b'",
            f"SELECT '{'a' * text}' GLOB '{'*a' * pattern}b'",
            f"SELECT '{'a' * text}' GLOB '{'[a-z]*' * (pattern // 5)}'",
            f"SELECT count(*) FROM {table} WHERE hex(zeroblob({text})) LIKE '{'%0_' * (pattern % 200)}x'",
            f"SELECT instr(hex(zeroblob({text * 10})), hex(zeroblob({pattern * 5})) || 'b')",
            f"SELECT json_valid('{'[' * text}{']' * text}'), json_extract('{'[' * 900}1{']' * 900}', '$')",
            f"SELECT * FROM json_tree('{'[' * (text % 1500)}{']' * (text % 1500)}')",
            f"SELECT json_patch('{{\"a\": {'[' * 99}{']' * 99}}}', '{{\"a\": null}}'), json('{'9' * text}')",
        ]
    )


def _long(random: Random, table: str) -> str:
    count = size(random, 1_200_000)
    return random.choice(
        [
            f"SELECT '{'x' * count}' FROM {table}",
            f"SELECT 1 /*{'*' * count}*/",
            f"SELECT x'{'ab' * (count // 2)}'",
            f"SELECT {'9' * count}",
            f"SELECT * FROM [{'n' * count}]",
            f"SELECT {'漢' * (count // 3)}",
            f"SELECT {', '.join(['v'] * (1 + count % 2_100))} FROM (SELECT '{'🦆' * (count // 4)}' AS v LIMIT 1)",
            f"{' ' * count}SELECT 1",
        ]
    )


def _chained(random: Random, table: str) -> str:
    """Common table expressions that each name the one before, once or twice."""
    once = ["SELECT 1 FROM {}", "SELECT * FROM {} UNION SELECT 1", "SELECT * FROM {} LIMIT 9", "SELECT max(1) FROM {}"]
    step, count = random.choice(
        [(random.choice(once), size(random, 6_000)), ("SELECT 1 FROM {0}, {0}", size(random, 40))]
    )
    steps = ", ".join(f"c{number + 1} AS ({step.format(f'c{number}')})" for number in range(count))
    return f"WITH c0 AS (SELECT 1 FROM {table}), {steps} SELECT * FROM c{count}"


BOMBS: list[Callable[[Random, str], str]] = [
    _nested,
    _many,
    _crossed,
    _endless,
    _large,
    _large,
    _patterns,
    _long,
    _chained,
]
