"""Handed in here, fetched there: ``--submit``, ``--collect`` with the run folder alone, and what is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import KEY, BatchServer, End
from batched import HURRIED, batch, notes
from chain import make_run, rows_of
from command import python
from servers import failure

from excot.builders.generations import generate
from excot.config import GenerateConfig
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment", "no_backoff")

TEMPLATE = "{% block user %}Answer in SQL: {{ question }}{% endblock %}"


def excot(server: BatchServer, *arguments: object) -> str:
    """What the command prints in a process of its own, with the server's key and address in its environment."""
    process = python(HURRIED, "generate", *arguments, environment=server.environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert KEY not in out + err
    return out


@pytest.fixture(params=["openai", "azure"])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with BatchServer(azure=request.param == "azure") as server:
        yield server


def test_handed_in_on_one_machine_and_fetched_on_another_with_the_run_folder_alone(
    tmp_path: Path, server: BatchServer
) -> None:
    here, template = make_run(tmp_path / "here", 10), tmp_path / "mine.jinja"
    template.write_text(TEMPLATE)
    server.open = False
    how = ["--backend", "azure-batch" if server.azure else "openai-batch", "--model", "tiny", "--n", 2]
    how += ["--temperature", 0.5, "--prompt", template]
    said = excot(server, "--out", here, *how, "--submit")
    assert said.splitlines() == [
        "0 of 10 questions are finished",
        f"10 are handed in; 3 batches at {server.url}: 0 of 10 requests are done",
        f"next, within 24 hours: excot generate --out {here} --collect",
    ]
    there = str(tmp_path / "there")
    shutil.move(here, there)
    template.unlink()
    shutil.rmtree(tmp_path / "here")

    assert "10 are handed in" in batch(there, server, model=None, collect=True)
    server.open = True
    batch(there, server, model=None, collect=True)  # the service takes a look or two to end its batches
    assert excot(server, "--out", there, "--collect").startswith("20 answers to 10 of 10 questions by tiny-2026")
    rows = rows_of(there, "generations")
    assert [len(row["candidates"]) for row in rows] == [2] * 10
    assert json.loads(rows[0]["sampling"])["temperature"] == 0.5
    assert rows[0]["prompt_id"].startswith("mine-")
    assert set(server.paid.values()) == {1} and server.made("batches") == 3
    assert batch(there, server, model=None, collect=True).startswith("already there: 20 answers")


def test_what_is_finished_is_fetched_though_the_rest_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 4})
    out = make_run(tmp_path, 10)
    with BatchServer(ends=[End(looks=1), End(looks=9), End(looks=1)]) as server:
        text = batch(out, server, submit=True)
        assert text.startswith("6 of 10 questions are finished\n4 are handed in; 1 batch at")
        assert "generations" not in Run(out).manifest["stages"]
        while "generations" not in Run(out).manifest["stages"]:
            text = batch(out, server, collect=True)
    assert "30 answers to 10 of 10" in text
    assert set(server.paid.values()) == {1}


def test_collecting_hands_in_again_what_failed_but_nothing_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer(ends=[End("expired", answered=2, looks=2)]) as server:
        batch(out, server, submit=True, n=1)
        text = batch(out, server, collect=True, n=1)
        assert text.startswith("2 of 4 questions are finished\n2 are handed in; 1 batch at")
        assert server.made("batches") == 2
        batch(out, server, collect=True, n=1)
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [1] * 4


def test_collecting_where_nothing_was_handed_in_is_an_error(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        for options in ({}, {"model": None}):
            with pytest.raises(ExcotError, match="nothing was handed in from"):
                batch(out, server, collect=True, **options)
    assert server.requests == []


def test_failures_that_another_start_saw_are_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 2})
    out = make_run(tmp_path, 4)
    with BatchServer(lambda r: failure(400, "odd"), ends=[End(looks=1), End(looks=3)]) as server:
        text = batch(out, server, submit=True)
        assert text.startswith("2 of 4 questions are finished")
        with pytest.raises(ExcotError, match="all 4 questions failed"):
            [batch(out, server, collect=True) for _ in range(4)]


# -- other options


def test_other_options_are_refused_while_questions_are_under_way(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer(ends=[End(looks=1)]) as server:
        server.open = False
        batch(out, server, submit=True)
        for options in ({}, {"resume": True}):
            with pytest.raises(ExcotError, match=r"handed in with temperature=1.0 \(now 0.5\).*--collect"):
                batch(out, server, temperature=0.5, **options)
        server.open = True
        batch(out, server, collect=True, model=None)
    assert len(rows_of(out, "generations")) == 4
    assert server.made("batches") == 1


def test_overwriting_stops_what_is_under_way_and_asks_anew(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        server.open = False
        batch(out, server, submit=True)
        server.open = True
        batch(out, server, temperature=0.5, overwrite=True)
        (first, second) = server.batches.values()
        assert (first["status"], second["status"]) == ("cancelling", "completed")
        batch(out, server, temperature=0.5, overwrite=True)  # and once more, since it was finished
        assert server.made("batches") == 3
    assert json.loads(rows_of(out, "generations")[0]["sampling"])["temperature"] == 0.5


def test_an_overwrite_that_was_handed_in_is_fetched_without_being_told_so(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, seed=1)
        first = Run(out).entry("generations")["fingerprint"]
        batch(out, server, seed=2, overwrite=True, submit=True)
        assert Run(out).entry("generations")["fingerprint"] == first
        batch(out, server, model=None, collect=True)
        second = Run(out).entry("generations")["fingerprint"]
        assert second != first
        assert batch(out, server, model=None, collect=True).startswith("already there")
    assert Run(out).entry("generations")["fingerprint"] == second
    assert server.made("batches") == 2


def test_answers_that_come_after_others_were_written_replace_them_when_told_so(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, submit=True)
        generate(GenerateConfig(out=out, backend="teacher", n=1))
        with pytest.raises(ExcotError, match="already holds generations made with"):
            batch(out, server, collect=True)
        batch(out, server, collect=True, overwrite=True)
    assert rows_of(out, "generations")[0]["model"] == "tiny-2026"
    assert server.made("batches") == 1


def test_a_budget_that_what_is_under_way_takes_up_does_not_stop_its_collection(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, submit=True)
        batch(out, server, max_tokens_total=1)
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3] * 4


def test_resuming_keeps_what_was_finished_with_other_options(tmp_path: Path) -> None:
    out = make_run(tmp_path, 6)
    with BatchServer() as server:
        batch(out, server, limit=2)
        batch(out, server, temperature=0.5, resume=True, submit=True)
        batch(out, server, model=None, collect=True)
    assert sum(server.paid.values()) == 6
    said = [json.loads(row["sampling"])["temperature"] for row in rows_of(out, "generations")]
    assert said == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]


def test_another_endpoint_than_that_of_the_batches_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server, BatchServer() as other:
        batch(out, server, submit=True)
        with pytest.raises(ExcotError, match=f"handed in at {server.url}, and this is {other.url}"):
            batch(out, other, collect=True)
        assert other.requests == []


def test_another_account_than_that_of_the_batches_is_told(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, submit=True)
        server.batches.clear()
        with pytest.raises(ExcotError, match="knows no batch batch_2: use the account"):
            batch(out, server, collect=True)


def test_a_budget_bounds_what_is_handed_in(tmp_path: Path) -> None:
    out = make_run(tmp_path, 8)
    with BatchServer() as server:
        with pytest.raises(ExcotError, match="stopped at"):
            batch(out, server, max_tokens_total=6000, max_tokens=300)
        assert 0 < sum(server.paid.values()) < 8
        batch(out, server, max_tokens=300)
    assert set(server.paid.values()) == {1} and len(server.paid) == 8


def test_every_round_has_notes_of_its_own(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with BatchServer() as server:
        batch(out, server, submit=True)
        text = batch(out, server, round=1, submit=True, seed=3)
        assert text.endswith(f"excot generate --round 1 --out {out} --collect")
    assert len(server.paid) == 6
    assert {path.name for path in (Path(out) / ".excot").glob("*.json")} >= {"batches.json", "batches_round1.json"}


# -- what is left behind


def test_nothing_of_ours_stays_on_the_disk_but_the_notes(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server)
    left = {path.name for path in (Path(out) / ".excot").iterdir()}
    assert left == {"lock", "local.json", "generations.jsonl", "batches.json", "batches.jsonl"}


def test_cleaning_deletes_our_files_and_no_other(tmp_path: Path, server: BatchServer) -> None:
    others = {server.add_file("excot-0123456789abcdef.jsonl", b"{}"), server.add_file("x", b"{}", "fine-tune")}
    out = make_run(tmp_path, 4)
    batch(out, server, submit=True, clean=True)
    assert len(server.files) > len(others)  # they are needed for now
    batch(out, server, clean=True)
    assert set(server.files) == others
    assert notes(out)["files"] == []
    assert len(rows_of(out, "generations")) == 4


def test_cleaning_later_deletes_what_an_earlier_start_left(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server)
        assert len(server.files) == 2
        batch(out, server, clean=True)
        assert server.files == {}


def test_files_of_work_that_was_given_up_are_cleaned_too(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, submit=True)
        batch(out, server, seed=3, overwrite=True, clean=True)
        assert server.files == {}


def test_a_service_that_deletes_nothing_spoils_no_dataset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        batch(out, server, submit=True)
        done = len(server.requests)
        server.troubles = dict.fromkeys(range(done + 2, done + 50), failure(403, "not allowed"))
        batch(out, server, clean=True)
        assert len(server.files) == 2
    assert "2 of our files are still at" in caplog.text
    assert len(rows_of(out, "generations")) == 4
