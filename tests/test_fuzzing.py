"""Two thousand statements that nobody would write: nothing fails, hangs, or is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import make_database
from conftest import SHARED_DATA
from sandboxed import SCHEMA

from benchmarks.fuzzing.checks import SLACK, Database, check, disagreements, spider, tasks
from excot.execution import Limits, Outcome, Task, Verdict, pool

LIMITS = Limits(seconds=0.2)
COUNT, SEED = 1_500, 20  # of tasks: some have several statements


def databases_in(folder: Path) -> list[Database]:
    """Spider's, with real candidates, and one of our own that has full-text tables, triggers, views and bad text."""
    own = Database(make_database(folder / "own" / "own.sqlite", SCHEMA))
    names = ["concert_singer", "world_1", "flight_2"]
    return [own, *(spider(SHARED_DATA, folder, names) if SHARED_DATA.is_dir() else [])]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of the databases, and an empty one: where the process works and where temporary files go."""
    databases, empty = tmp_path / "databases", tmp_path / "empty"
    databases.mkdir()
    empty.mkdir()
    monkeypatch.chdir(empty)
    for variable in ("TMPDIR", "SQLITE_TMPDIR"):
        monkeypatch.setenv(variable, str(empty))
    return [databases, empty]


def test_nothing_that_a_model_might_write_breaks_verification_and_a_seed_tells_its_statuses(folders):
    databases = databases_in(folders[0])
    found = check(tasks(databases, range(COUNT), SEED, LIMITS), 2, folders)
    assert found.faults == []
    assert found.statements > 1_800
    assert found.slowest < SLACK
    assert all(found.counts[status] > 5 for status in ("ok", "error", "refused", "timeout", "too_large")), found.counts
    assert found.counts["ok"] > 0.25 * found.statements
    again = check(tasks(databases, range(300), SEED, LIMITS), 1, folders)
    assert again.faults == []
    assert disagreements(found, again, tasks(databases, range(300), SEED, LIMITS)) == []


def test_the_checks_see_what_is_wrong(folders, monkeypatch):
    """They would be worth nothing if they could not fail."""
    path = databases_in(folders[0])[0].path
    task = Task("1", (path,), "SELECT 1", ("SELECT 2",), LIMITS)

    def faults(**wrong: object) -> list[str]:
        def verify(tasks, processes):
            for id, verdict in pool.verify_all(tasks, processes):
                (outcome,) = verdict.candidates
                yield id, Verdict(verdict.gold, (Outcome(**{**vars(outcome), **wrong}),))

        monkeypatch.setattr("benchmarks.fuzzing.checks.verify_all", verify)
        return check([task], 1, folders).faults

    assert faults() == []
    assert "status 'gone'" in faults(status="gone")[0]
    assert "ok, error 'x'" in faults(error="x")[0]
    assert "ok with None rows" in faults(rows=None)[0]
    assert "2.80 s over its limit" in faults(seconds=3.0)[0]

    def dropping(tasks, processes):
        list(tasks)
        (folders[1] / "dropped").touch()
        path.write_bytes(b"x" + path.read_bytes())
        raise ZeroDivisionError
        yield

    monkeypatch.setattr("benchmarks.fuzzing.checks.verify_all", dropping)
    failed, *changed = check([task], 1, folders).faults
    assert "ZeroDivisionError" in failed and "SELECT 2" in failed
    assert [str(path) in changed[0], str(folders[1] / "dropped") in changed[1]] == [True, True]
