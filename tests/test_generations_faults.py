"""The stage ``generations`` against an endpoint that does everything wrong: each answer once, or its failure."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chain import answers, ask, make_run, place, rows_of
from faulty import ANSWERS, FINAL, PASSING, Faulty, Limited, truth
from servers import ChatServer, Reply, Request, failure

from excot.builders.generations import generate, seed_of
from excot.builders.ledger import request_seed
from excot.config import GenerateConfig
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


# -- everything at once


@pytest.fixture(params=["openai", "azure"])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that name a server, in OpenAI's form and in Azure's."""

    def options(server: ChatServer) -> dict[str, Any]:
        if request.param == "openai":
            return {"base_url": server.url}
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef")
        return {"backend": "azure", "base_url": server.url.removesuffix("/v1"), "api_version": "2024-10-21"}

    return options


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("seed", [1, 2])
def test_each_candidate_is_there_exactly_once_or_its_failure_is_recorded(
    seed: int, tmp_path: Path, address: Any, caplog: pytest.LogCaptureFixture
) -> None:
    n, out, faulty = 3, make_run(tmp_path, 100), Faulty(seed)
    options = {"out": out, "model": "tiny", "n": n, "timeout": 1.0}
    with ChatServer(otherwise=faulty) as server:
        generate(GenerateConfig(**options, **address(server)))
        paths = {request.path for request in server.requests}
    assert len(paths) == 1
    assert len(faulty.met) > 12  # of all kinds

    rows, failed = rows_of(out, "generations"), Run(out).entry("generations")["failed"]
    for k, row in enumerate(rows):
        texts = answers(row)
        if row["failure"] or row["id"] in failed:
            assert texts == [] and bool(row["failure"]) != (row["id"] in failed)
            continue
        assert len(texts) == n
        seeds = [request_seed(seed_of(0, row["id"]), request) for request in range(n)]
        named = [text for text in texts if text]
        assert len(set(named)) == len(named)
        for text, said in zip(texts, row["candidates"], strict=True):
            assert said["seed"] in seeds
            assert (text or "").rpartition("/")[0] in ("", f"{k}/{said['seed']}")
            assert said["finish_reason"] == ("stop" if text else "content_filter")
    kinds = Counter(row["failure"] for row in rows if row["failure"])
    assert Run(out).entry("generations")["failures"] == kinds

    # Once the endpoint is well again, just the failed ones are asked, and nothing else changes.
    with ChatServer(otherwise=truth) as server:
        generate(GenerateConfig(**options, **address(server)))
        assert {place(request) for request in server.requests} == {int(id[-4:]) for id in failed}
    again = rows_of(out, "generations")
    assert [row for row in again if row["id"] not in failed] == [row for row in rows if row["id"] not in failed]
    assert all(len(row["candidates"]) == n for row in again if row["id"] in failed)


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("name", PASSING)
def test_a_trouble_that_passes_leaves_no_trace(name: str, tmp_path: Path) -> None:
    seen: Counter[int] = Counter()

    def twice(request: Request) -> Reply:
        seen[place(request)] += 1
        return PASSING[name](request) if seen[place(request)] < 3 else truth(request)

    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=twice) as server:
        ask(out, server, timeout=1.0)
    for k, row in enumerate(rows_of(out, "generations")):
        assert answers(row) == [f"{k}/{seed_of(0, row['id'])}/{choice}" for choice in range(3)]
    assert Run(out).entry("generations")["failed"] == {}


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("name", [*ANSWERS])
def test_an_odd_answer_is_an_answer(name: str, tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=ANSWERS[name]) as server:
        ask(out, server)
    rows = rows_of(out, "generations")
    assert [len(row["candidates"]) for row in rows] == [3] * 3
    assert len(server.requests) == (9 if name == "one choice" else 3)
    for row in rows:
        assert row["failure"] is None
        if name in ("null", "an empty text"):
            assert {(c["text"], c["finish_reason"]) for c in row["candidates"]} == {
                (None if name == "null" else "", "content_filter")
            }
        else:
            assert len(set(answers(row))) == 3


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("name", FINAL)
def test_what_is_not_to_be_retried_is_asked_once(name: str, tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=lambda r: FINAL[name](r) if place(r) == 1 else truth(r)) as server:
        ask(out, server)
    assert len(server.requests) == 3
    rows, entry = rows_of(out, "generations"), Run(out).entry("generations")
    kind = {"too long": "too_long", "filtered": "content_filter"}.get(name)
    assert [row["failure"] for row in rows] == [None, kind, None]
    assert rows[1]["prompt_tokens"] == (11 if name == "too long" else None)
    assert list(entry["failed"]) == ([] if kind else ["data-train-0001"])


# -- services that allow so much and no more, and such as have stopped working


@pytest.mark.parametrize("retry_after", ["1", "0.2", None])
def test_a_rate_limit_slows_the_run_down_and_fails_nothing(retry_after: str | None, tmp_path: Path) -> None:
    out, limited = make_run(tmp_path, 120), Limited(rate=20, burst=20, retry_after=retry_after)
    started = time.monotonic()
    with ChatServer(otherwise=limited) as server:
        ask(out, server, n=1, concurrency=16)
    seconds = time.monotonic() - started
    assert Run(out).entry("generations")["failed"] == {}
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [1] * 120
    assert 4.9 < seconds < 15  # (120 - 20) / 20 at best
    assert limited.refused < 120


@pytest.mark.usefixtures("no_backoff")
def test_an_endpoint_that_has_stopped_working_ends_the_run_soon(tmp_path: Path) -> None:
    out = make_run(tmp_path, 200)

    def breaks(request: Request) -> Reply:
        return truth(request) if len(server.requests) <= 10 else Reply("", 500)

    with ChatServer(otherwise=breaks) as server:
        with pytest.raises(ExcotError, match=r"12 requests failed one after the other, the last with: .*HTTP 500"):
            ask(out, server, concurrency=4)
        assert len(server.requests) < 10 + (12 + 4) * 9
    with ChatServer(otherwise=truth) as server:
        ask(out, server)
    assert len(server.requests) == 190


def test_answers_in_flight_are_waited_for_when_another_question_ends_the_run(tmp_path: Path) -> None:
    out = make_run(tmp_path, 8)

    def no_credit_left(request: Request) -> Reply:
        if place(request) == 2:
            return failure(429, "You exceeded your quota", code="insufficient_quota")
        return Reply(truth(request, 1).body, delay=0.3)

    with ChatServer(otherwise=no_credit_left) as server:
        with pytest.raises(ExcotError, match="no credit left"):
            ask(out, server, n=2, concurrency=4)
        assert len(server.requests) == 4
    with ChatServer(otherwise=lambda r: truth(r, 1)) as server:
        ask(out, server, n=2)
    assert len(server.requests) == 16 - 3  # three parts of answers had been paid for
