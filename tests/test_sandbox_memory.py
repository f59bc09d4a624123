"""What one statement can make a process need, whoever reads its rows keeping none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from chain import make_database
from sandboxed import SCHEMA, rows

from excot.execution.sandbox import Limits, Sandbox

MOST = 300  # MB

# VmHWM rather than `ru_maxrss`, which begins with what the parent held when it started the process.
PROGRAM = """
import sys
from excot.execution.sandbox import Limits, Sandbox
sandbox = Sandbox(sys.argv[1], Limits(seconds=20))
for sql in eval(sys.stdin.read()):
    execution = sandbox.run(sql, lambda rows: sum(1 for _ in rows))
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(execution.status, int(peak) // 1000, execution.error, flush=True)
"""


def same(value: str, columns: int) -> str:
    return ", ".join([value] * columns)


LITERAL, BLOB = "'" + "a" * 90_000 + "'", "x'" + "ab" * 45_000 + "'"

# In the order of what they need, so that each one's own peak is seen.
GREEDY = {
    # What Python copies is never more than a row's share, though SQLite would hold the value only once.
    f"SELECT {same('v', 2000)} FROM (SELECT {LITERAL} AS v LIMIT 1)": "too_large",
    f"SELECT {same('v', 2000)} FROM (SELECT {BLOB} AS v LIMIT 1)": "too_large",
    f"SELECT {same('v', 900)} FROM (SELECT '{'a' * 90_000}🦆' AS v UNION ALL SELECT 1)": "too_large",
    f"SELECT {same('zeroblob(100000)', 2000)}": "too_large",
    f"SELECT {same('hex(zeroblob(1900000))', 30)}": "too_large",
    # One character makes every other one of its text take four bytes.
    f"SELECT {same('hex(zeroblob(510000 + n)) || char(128512)', 16)} FROM number": "too_large",
    # SQLite's own memory.
    "WITH c0 AS (SELECT 1), " + ", ".join(f"c{i + 1} AS (SELECT 1 FROM c{i}, c{i})" for i in range(25))
    + " SELECT * FROM c25": "too_large",
    "SELECT 1 IN (" + same("1", 33_000) + ")": "ok",
    "SELECT max(hex(zeroblob(1900000 + n))) OVER (ORDER BY n ROWS 99 PRECEDING) FROM number LIMIT 30": "too_large",
    # What is allowed, at its worst: SQLite's values, the row that is made of them, and the row before.
    f"SELECT {same('hex(zeroblob(490000 + n)) || char(128512)', 15)} FROM number LIMIT 3": "ok",
    f"SELECT {same('zeroblob(3990000 + n)', 14)} FROM number LIMIT 3": "ok",
}  # fmt: skip


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot limit the length of a value")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a process's peak is told under Linux only")
def test_no_statement_makes_a_process_need_more_than_it_may(tmp_path):
    path = make_database(tmp_path / "x.sqlite", SCHEMA)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], input=repr(list(GREEDY)), capture_output=True, text=True
    )
    lines = [line.split(" ", 2) for line in result.stdout.splitlines()]
    assert [status for status, *_ in lines] == list(GREEDY.values()), (result.stdout, result.stderr)
    assert max(int(peak) for _, peak, _ in lines) < MOST, result.stdout


def test_small_rows_may_be_many_and_wide_rows_may_be_long(tmp_path):
    columns = ", ".join(f"c{number}" for number in range(200))
    values = ", ".join([f"'{'é' * 500}'"] * 200)
    path = make_database(tmp_path / "x.sqlite", f"CREATE TABLE wide ({columns}); INSERT INTO wide VALUES ({values})")
    sandbox = Sandbox(path, Limits(seconds=60))
    million = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000000) SELECT n, 'x' FROM c"
    assert sandbox.run(f"{million} ORDER BY -n", lambda rows: sum(1 for _ in rows)).value == 1_000_000
    assert rows(sandbox, "SELECT * FROM wide a JOIN wide b ORDER BY a.c7") == [("é" * 500,) * 400]
    assert len(rows(sandbox, "SELECT hex(zeroblob(1990000))")[0][0]) == 3_980_000
    sandbox.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot limit the length of a value")
def test_values_are_shorter_in_wide_rows_and_as_long_as_before_in_the_next_statement(tmp_path):
    sandbox = Sandbox(make_database(tmp_path / "x.sqlite", SCHEMA), Limits(value_bytes=10_000, row_bytes=100_000))
    for _ in range(2):
        assert sandbox.run("SELECT zeroblob(10000)", list).status == "ok"
        assert sandbox.run(f"SELECT {same('zeroblob(10000)', 10)}", list).status == "ok"
        assert sandbox.run(f"SELECT {same('zeroblob(10000)', 11)}", list).status == "too_large"
        assert sandbox.run(f"SELECT {same('zeroblob(4900)', 20)}", list).status == "ok"
        assert sandbox.run(f"SELECT {same('hex(zeroblob(600))', 100)}", list).status == "too_large"
    sandbox.close()
