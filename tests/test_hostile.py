"""The hostile statements through the pool: each ends as it must, in time, and harms nobody beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import make_database
from hostile import HOSTILE, UNINTERRUPTED
from sandboxed import SCHEMA

from benchmarks.fuzzing.checks import SLACK, check
from excot.execution import Limits, Matches, Task, verify_all

LIMITS = Limits(seconds=0.5)
RIGHT, WRONG = Matches(True, True, True, True), Matches()


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of the database, and an empty one: where the process works and where temporary files go."""
    make_database(tmp_path / "database" / "x.sqlite", SCHEMA)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    for variable in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(variable, str(empty))
    return [tmp_path / "database", empty]


def statements(folder: Path) -> dict[str, tuple[str, set[str]]]:
    """Every statement with the statuses that it may end with."""
    found = {name: (sql, set(expected.split(" or "))) for name, (sql, expected) in HOSTILE.items()}
    found |= {f"uninterrupted {name}": (sql, {"timeout"}) for name, sql in UNINTERRUPTED.items()}
    return {
        name: (sql.replace("{folder}", str(folder)).replace("{{", "{"), expected)
        for name, (sql, expected) in found.items()
    }


def test_every_hostile_statement_ends_as_it_must_and_in_time(folders):
    hostile = statements(folders[0])
    database = (folders[0] / "x.sqlite",)
    # The gold fails, so that a candidate's rows are read to the end.
    tasks = [Task(name, database, "SELECT nothing", (sql,), LIMITS) for name, (sql, _) in hostile.items()]
    found = check(tasks, 2, folders)
    assert found.faults == []
    assert found.slowest < SLACK
    wrong = {
        name: found.statuses[name]
        for name, (_, expected) in hostile.items()
        if found.statuses[name][0] not in expected
    }
    assert wrong == {}


def test_no_hostile_statement_harms_its_neighbours(folders):
    """Between two right answers and a wrong one each, as gold once, and as often as there are kinds of harm."""
    hostile = statements(folders[0])
    database = (folders[0] / "x.sqlite",)
    chosen = [
        *list(hostile)[::7],
        "a chain of common table expressions",
        *(name for name in hostile if "uninter" in name),
    ]
    right, wrong, as_well = "SELECT a, b FROM t WHERE 1", "SELECT b, b FROM t", "SELECT * FROM (SELECT a, b FROM t)"
    beside = [
        Task(name, database, "SELECT a, b FROM t", (right, hostile[name][0], wrong, as_well), LIMITS)
        for name in chosen
    ]
    golds = [Task(f"gold {task.id}", database, task.candidates[1], task.candidates[::2], LIMITS) for task in beside]
    verdicts = dict(verify_all([*beside, *golds], 2))
    assert len(verdicts) == len(beside) + len(golds)
    for task in beside:
        first, harm, second, third = verdicts[task.id].candidates
        assert [first.status, second.status, third.status] == ["ok"] * 3, task.id
        assert [first.matches, second.matches, third.matches] == [RIGHT, WRONG, RIGHT], task.id
        assert harm.status == "ok" or harm.matches == WRONG
    for task in golds:
        assert [outcome.status for outcome in verdicts[task.id].candidates] == ["ok", "ok"], task.id
