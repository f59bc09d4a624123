"""A push or a pull that is cut off anywhere is repeated with the same command, and ends as if nothing had happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from command import done, excot, start
from hub import HubServer, Reply, Request
from pushed import REPO, copy, go_on, here, make_finished, rows, there

from excot.run import Run


class CuttingHub(HubServer):
    """Breaks every connection from one request on: before it has done what was asked, or just after."""

    def __init__(self) -> None:
        super().__init__()
        self.left: float = float("inf")  # requests until then
        self.does_the_last = False

    def answer(self, request: Request) -> Reply:
        self.left -= 1
        reply = Reply(status=None)
        if self.left > 0 or (self.left == 0 and self.does_the_last):
            reply = super().answer(request)
        return reply if self.left > 0 else Reply(status=None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be tried again is left to the next command."""
    monkeypatch.setattr("excot.hub.asking.PAUSES", ())


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run folder after its first round and after its second."""
    first = make_finished(tmp_path_factory.mktemp("rounds"))
    second = copy(first, first.parent / "second")
    go_on(second)
    return first, second


Scenario = Callable[[Path, tuple[Path, Path]], list[Any]]


def first_push(run: Path, rounds: tuple[Path, Path]) -> list[Any]:
    shutil.copytree(rounds[0], run)
    return ["push", run, REPO, "--tag", "v1"]


def second_push(run: Path, rounds: tuple[Path, Path]) -> list[Any]:
    shutil.copytree(rounds[1], run)
    before = copy(rounds[0], run.parent / f"{run.name}-before")
    done("push", before, REPO, "--tag", "v1")
    shutil.copy(before / ".excot" / "hub.json", run / ".excot")
    return ["push", run, REPO, "--tag", "v2"]


def moved_tag(run: Path, rounds: tuple[Path, Path]) -> list[Any]:
    return [*second_push(run, rounds)[:-1], "v1", "--overwrite-tag"]


def request(run: Path, rounds: tuple[Path, Path]) -> list[Any]:
    return [*second_push(run, rounds)[:-2], "--create-pr"]


def pull(run: Path, rounds: tuple[Path, Path]) -> list[Any]:
    done("push", copy(rounds[0], run.parent / f"{run.name}-pushed"), REPO, "--tag", "v1")
    return ["pull", f"{REPO}@v1", run]


@pytest.mark.parametrize("prepare", [first_push, second_push, moved_tag, request, pull])
def test_cut_off_at_every_step_and_repeated_it_ends_as_an_undisturbed_one(prepare, rounds, tmp_path, monkeypatch):
    def state(hub: HubServer, run: Path) -> Any:
        """All that others can see, and what is here."""
        repo = hub.repos["dataset", REPO]
        refs = {**repo.branches, **repo.tags, **repo.pull_requests}
        history = [commit.title for commit in repo.commits.values()]
        return {name: repo.files(name) for name in refs}, sorted(history), here(run)

    folder, prepared = tmp_path / "folder", tmp_path / "prepared"
    folder.mkdir()
    with CuttingHub() as hub:
        hub.online(monkeypatch, tmp_path / "home")
        command = prepare(folder / "run", rounds)
        repos, before, pushed = deepcopy(hub.repos), len(hub.requests), len(hub.seen("PUT /lfs"))
        shutil.copytree(folder, prepared)
        done(*command)
        steps, uploads = len(hub.requests) - before, len(hub.seen("PUT /lfs")) - pushed
        undisturbed = state(hub, folder / "run")

    for number in range(2 * steps):
        step, does_the_last = number // 2 + 1, bool(number % 2)
        shutil.rmtree(folder)
        shutil.copytree(prepared, folder)
        with CuttingHub() as hub:
            hub.online(monkeypatch, folder / "home")
            hub.repos = deepcopy(repos)
            hub.left, hub.does_the_last = step, does_the_last
            cut = excot(*command)
            hub.left = float("inf")
            # What the clients repeat by themselves may have been enough, or the last confirmation was not needed.
            assert cut.code == 0 or " the Hub failed (" in cut.err, (step, cut.err)
            done(*command)
            found = state(hub, folder / "run")
            assert found == undisturbed, (command[0], step, does_the_last)
            assert len(hub.seen("PUT /lfs")) <= uploads + 8  # of what was on the way, and its repetitions


def test_what_was_changed_after_a_lost_confirmation_is_pushed_by_the_next_command(rounds, tmp_path, monkeypatch):
    with CuttingHub() as hub:
        hub.online(monkeypatch, tmp_path / "home")
        run = tmp_path / "run"
        command = first_push(run, rounds)

        def lose_the_next(request: Request) -> None:
            if "/commit/" in str(request):
                hub.left = 0  # what is being answered is done, but nobody hears of it

        hub.watch = lose_the_next
        assert excot(*command).code == 1
        hub.watch, hub.left = (lambda request: None), float("inf")
        assert len(there(hub)) > 5
        done("pairs", "--strategy", "farthest", "--overwrite", "--out", run)
        done(*command)
        assert there(hub, "v1") == here(run)


def test_of_two_pushers_at_once_one_wins_the_other_is_told_and_nothing_is_lost(hub, rounds, tmp_path):
    mine, theirs = copy(rounds[0], tmp_path / "mine"), copy(rounds[0], tmp_path / "theirs")
    done("push", mine, REPO, "--tag", "v0")
    done("pull", REPO, theirs)
    go_on(mine, round=1, seed=1)
    go_on(theirs, round=2, seed=2)
    other: list[Any] = []

    def meanwhile(request: Request) -> None:
        if "/commit/" in str(request) and not other:
            other.append(start("push", theirs, REPO, environment=hub.environment(tmp_path / "other")))
            assert other[0].wait(60) == 0, other[0].stderr.read()

    hub.watch = meanwhile
    told = excot("push", mine, REPO)
    assert told.code == 1
    assert f"{REPO} has changed since this folder was last in step with it: generations_round2 new" in told.err
    assert there(hub) == here(theirs)
    done("pull", REPO, mine)
    done("push", mine, REPO)
    for folder, name in ((mine, "pairs_round1"), (theirs, "pairs_round2")):
        assert rows(folder, name) == rows(mine, name)
    assert there(hub) == here(mine)


def test_two_first_pushes_at_the_same_moment(hub, rounds, tmp_path):
    folders = [copy(rounds[number], tmp_path / f"run{number}") for number in range(2)]
    processes = [
        start("push", folder, REPO, environment=hub.environment(tmp_path / folder.name / "home")) for folder in folders
    ]
    ends = [process.communicate(timeout=60) for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1], ends
    winner = folders[codes.index(0)]
    assert there(hub) == {path: content for path, content in here(winner).items() if not path.startswith("home/")}
    assert REPO in ends[codes.index(1)][1]


def test_a_stage_at_work_in_the_folder_is_not_pushed_half_done(hub, rounds, tmp_path):
    run = copy(rounds[0], tmp_path / "run")
    with Run(run).begin("pairs", {}, ("verified",), on_existing="overwrite"):
        assert "another excot process is at work" in excot("push", run, REPO).err
    assert hub.writes == []
