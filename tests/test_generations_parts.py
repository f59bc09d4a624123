"""Endpoints that give fewer choices than they are asked for: the rest is asked for, and each part is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain import answers, ask, make_run, place, rows_of
from faulty import truth
from hypothesis import given
from hypothesis import strategies as st
from servers import ChatServer, Reply, Request, failure

from excot.builders.generations import seed_of
from excot.builders.ledger import request_seed
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_a_server_that_ignores_n_is_asked_until_there_are_n_each_time_with_another_seed(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=lambda r: truth(r, 1)) as server:
        ask(out, server, n=4, concurrency=1)
    assert [request.json["n"] for request in server.requests] == [4, 3, 2, 1] * 2
    for k, row in enumerate(rows_of(out, "generations")):
        seeds = [request_seed(seed_of(0, row["id"]), request) for request in range(4)]
        assert answers(row) == [f"{k}/{seed}/0" for seed in seeds]
        assert [candidate["seed"] for candidate in row["candidates"]] == seeds
        assert len(set(seeds)) == 4
        assert [candidate["completion_tokens"] for candidate in row["candidates"]] == [5] * 4
        assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 20)
    entry = Run(out).entry("generations")
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (2 * 4 * 7, 2 * 20)  # all requests are paid for


@pytest.mark.usefixtures("no_backoff")
def test_what_part_of_a_question_was_answered_before_a_failure_is_not_asked_again(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)

    def stops(request: Request) -> Reply:
        return failure(400, "enough") if request.json["n"] == 2 and place(request) == 1 else truth(request, 1)

    with ChatServer(otherwise=stops) as server:
        ask(out, server, n=4)
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [4, 0]
    with ChatServer(otherwise=lambda r: truth(r, 1)) as server:
        ask(out, server, n=4)
    assert [request.json["n"] for request in server.requests] == [2, 1]
    with ChatServer(otherwise=lambda r: truth(r, 1)) as server:
        undisturbed = make_run(tmp_path / "undisturbed", 2)
        ask(undisturbed, server, n=4)
    assert rows_of(out, "generations") == rows_of(undisturbed, "generations")


def test_parts_of_an_answer_hold_for_the_options_they_were_asked_with(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=lambda r: failure(401, "no") if r.json["n"] == 2 else truth(r, 1)) as server:
        with pytest.raises(ExcotError):
            ask(out, server, n=3, concurrency=1)
    with ChatServer(otherwise=lambda r: truth(r, 1)) as server:
        ask(out, server, n=3, temperature=0.5, concurrency=1, resume=True)
    assert [request.json["n"] for request in server.requests] == [3, 2, 1] * 2
    assert {json.loads(row["sampling"])["temperature"] for row in rows_of(out, "generations")} == {0.5}


def test_tokens_that_nobody_counts_are_unknown(tmp_path: Path) -> None:
    def without_usage(request: Request) -> Reply:
        reply = truth(request)
        del reply.body["usage"]
        return reply

    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=without_usage) as server:
        text = ask(out, server)
    assert "answer tokens" not in text
    counts = {(row["prompt_tokens"], row["completion_tokens"]) for row in rows_of(out, "generations")}
    assert counts == {(None, None)}
    entry = Run(out).entry("generations")
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["cost"]) == (None, None, None)


@given(st.integers(0, 2**31 - 1), st.integers(1, 500))
def test_seeds_of_further_requests_are_31_bit_and_not_the_neighbours(seed: int, request: int) -> None:
    derived = request_seed(seed, request)
    assert 0 <= derived < 2**31
    assert derived == request_seed(seed, request) != request_seed(seed, request + 1)
    assert request_seed(seed, 0) == seed
