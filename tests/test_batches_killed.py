"""Batches when connections break and processes end: nothing is paid for twice, and the rows are the same."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from batch_server import CUT_AFTER, CUT_BEFORE, BatchServer, End
from batched import HURRIED, Killed, batch, killed_at, notes, until_done
from chain import make_data, make_run, read_data, rows_of
from command import python
from servers import chat

from excot.builders.batch_notes import Notes
from excot.builders.ledger import Ledger
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment", "no_backoff")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 4, "azure": 4})


def server(azure: bool = False, troubles: dict | None = None) -> BatchServer:
    """Two chunks, of which the first leaves something for a third."""
    return BatchServer(ends=[End("expired", answered=3), End()], azure=azure, troubles=troubles)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """The fingerprint of the rows, and how many requests they take."""
    out = make_run(tmp_path_factory.mktemp("undisturbed"), 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 4, "azure": 4})
        for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
            patch.setattr(f"excot.builders.batch_rounds.{name}", 0.01)
        patch.setenv("NO_PROXY", "127.0.0.1")
        with server() as service:
            batch(out, service)
    assert set(service.paid.values()) == {1} and len(service.paid) == 8
    return _fingerprint(out), len(service.requests)


def _fingerprint(out: str) -> str:
    return Run(out).entry("generations")["fingerprint"]


def check(out: str, service: BatchServer, fingerprint: str) -> None:
    assert _fingerprint(out) == fingerprint
    assert set(service.paid.values()) == {1}, "a request was paid for twice"
    assert sum(row["purpose"] == "batch" for row in service.files.values()) == 3, "a file was uploaded twice"
    assert set(notes(out)["files"]) == set(service.files)  # all of them are known to be ours


def moments(undisturbed: tuple[str, int]) -> Iterator[int]:
    yield from range(undisturbed[1])


@pytest.mark.parametrize(
    ("azure", "how"), [(False, CUT_BEFORE), (False, CUT_AFTER), (True, CUT_AFTER)], ids=["before", "after", "azure"]
)
def test_a_connection_that_breaks_at_any_request_changes_nothing(
    tmp_path: Path, how: str, azure: bool, undisturbed: tuple[str, int]
) -> None:
    data = make_data(tmp_path / "data", 8)
    for moment in moments(undisturbed):
        out = read_data(data, tmp_path / f"run-{moment}")
        with server(azure, {moment: how}) as service:
            batch(out, service)
        if azure:
            assert set(service.paid.values()) == {1}
        else:
            check(out, service, undisturbed[0])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_request_it_goes_on(tmp_path: Path, after: bool, undisturbed: tuple[str, int]) -> None:
    data = make_data(tmp_path / "data", 8)
    for moment in moments(undisturbed):
        out = read_data(data, tmp_path / f"run-{moment}")
        with server() as service:
            with killed_at(moment, after), pytest.raises(Killed):
                batch(out, service)
            batch(out, service)
        check(out, service, undisturbed[0])


def test_killed_at_every_request_it_comes_to_its_end(tmp_path: Path, undisturbed: tuple[str, int]) -> None:
    """Each start makes a few requests and dies once the service has answered the last of them."""
    out = make_run(tmp_path, 8)
    allowance = iter([1, 1, 2, 2, 3, 3, *range(4, 30)])

    with server() as service:

        def start() -> str:
            with killed_at(next(allowance), after=True):
                return batch(out, service)

        assert until_done(start) > 5
    check(out, service, undisturbed[0])


def test_killed_before_any_note_it_goes_on(
    tmp_path: Path, undisturbed: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, save = make_data(tmp_path / "data", 8), Notes.save
    for moment in range(1, 100):
        saved = 0

        def die(self: Notes, moment: int = moment) -> None:
            nonlocal saved
            saved += 1
            if saved == moment:
                raise Killed
            save(self)

        out = read_data(data, tmp_path / f"run-{moment}")
        with server() as service:
            with monkeypatch.context() as patch:
                patch.setattr(Notes, "save", die)
                try:
                    batch(out, service)
                except Killed:
                    pass
                else:
                    break
            batch(out, service)
        check(out, service, undisturbed[0])
    assert moment > 10  # the loop has come to a start that was not killed


def test_killed_while_answers_are_joined_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = make_run(tmp_path, 8), Ledger.keep
    with BatchServer(ends=[End(), End()]) as service:
        for number in (1, 2, 1, 1):
            kept = 0

            def die(self: Ledger, *arguments: object, number: int = number) -> bool:
                nonlocal kept
                kept += 1
                if kept > number:
                    raise Killed
                return real(self, *arguments)

            with monkeypatch.context() as patch:
                patch.setattr(Ledger, "keep", die)
                with pytest.raises(Killed):
                    batch(out, service)
        batch(out, service)
    assert set(service.paid.values()) == {1}
    assert sum(path.endswith("content") for _, path in service.requests) == 2  # what was fetched is not fetched again
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3] * 8


def test_killed_between_the_answers_of_one_question_their_order_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that gives one answer at a time, the second question's in the opposite order."""
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 100})
    data, real, found = make_data(tmp_path / "data", 2), Ledger.keep, []
    for moment in range(9):
        out, kept = read_data(data, tmp_path / f"run-{moment}"), 0

        def die(self: Ledger, *arguments: object, moment: int = moment) -> bool:
            nonlocal kept
            kept += 1
            finished = real(self, *arguments)
            if kept == moment:
                raise Killed
            return finished

        one, backwards = lambda request: chat(f"{request.json['seed']}"), lambda output, errors: (output[::-1], errors)
        with BatchServer(one, ends=[End(), End(edit=backwards)]) as service:
            with monkeypatch.context() as patch:
                patch.setattr(Ledger, "keep", die)
                with pytest.raises(Killed) if moment else nullcontext():
                    batch(out, service, n=4)
            batch(out, service, n=4)
        assert set(service.paid.values()) == {1} and len(service.paid) == 8
        found.append(rows_of(out, "generations"))
    assert found == found[:1] * 9


def test_killed_by_the_system_at_random_moments_it_goes_on(tmp_path: Path, undisturbed: tuple[str, int]) -> None:
    out, dice = make_run(tmp_path, 8), random.Random()
    command = ["generate", "--backend", "openai-batch", "--model", "tiny", "--n", "3", "--out", out]
    moments = sorted(dice.sample(range(1, undisturbed[1]), 3))
    with server() as service:
        for moment in [*moments, None]:
            process = python(HURRIED, *command, environment=service.environment)
            while moment is not None and process.poll() is None and len(service.requests) < moment:
                time.sleep(0.001)
            if moment is not None:
                process.send_signal(signal.SIGKILL)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"{err}; killed at {moments}"
    assert _fingerprint(out) == undisturbed[0]
    assert set(service.paid.values()) == {1}, f"killed at {moments}"


def test_only_our_own_are_taken_over_among_many(tmp_path: Path) -> None:
    """Killed when the service has made something: it is found on the last page of the list."""
    data = make_data(tmp_path / "data", 3)
    for moment in (0, 2):  # the upload, and the making of the batch
        out, other = (read_data(data, tmp_path / f"{name}-{moment}") for name in ("run", "other"))
        with BatchServer(page=1) as service:
            with killed_at(moment, after=True), pytest.raises(Killed):
                batch(out, service)
            for name in ("excot-0123456789abcdef.jsonl", "x.jsonl"):
                service.add_file(name, b"{}")
            batch(other, service, n=1, submit=True)
            batch(out, service)
            batch(other, service, n=1)
        assert set(service.paid.values()) == {1} and len(service.paid) == 6
        assert len(service.batches) == 2
        assert not set(notes(out)["files"]) & set(notes(other)["files"])


def test_a_service_that_lists_nothing_is_asked_again_only_where_it_confirmed_nothing(tmp_path: Path) -> None:
    """What it did without ever saying so can be paid for twice, and nothing else."""

    class Silent(BatchServer):
        def _listed(self, rows: list, query: dict) -> dict:
            return super()._listed([], query)

    data = make_data(tmp_path / "data", 3)
    for moment in range(6):
        out = read_data(data, tmp_path / f"run-{moment}")
        with Silent() as service:
            with killed_at(moment, after=True), pytest.raises(Killed):
                batch(out, service)
            batch(out, service)
        assert set(service.paid.values()) == ({2} if moment == 2 else {1})
