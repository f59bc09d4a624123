"""The OpenAI backend against a real HTTP server: what is asked, what is answered, and what an endpoint lacks."""

from __future__ import annotations

import asyncio
import threading

import pytest
from asked import MESSAGES, ask, texts, the_error
from servers import ChatServer, Reply, Request, chat, failure, obedient

from excot.llm.base import Candidate, FatalBackendError, Sampling
from excot.llm.openai import OpenAI

pytestmark = pytest.mark.usefixtures("clean_environment")


# -- the request and the answer


def test_the_sampling_settings_reach_the_server() -> None:
    with ChatServer() as server:
        ask(OpenAI("tiny", server.url), n=3, temperature=0.7, top_p=0.9, max_tokens=99, seed=11)
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.requests[0].json == {
        "model": "tiny",
        "messages": MESSAGES,
        "n": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 99,
        "seed": 11,
    }


def test_one_request_gives_all_candidates_in_order() -> None:
    with ChatServer() as server:
        completion = ask(OpenAI("tiny", server.url), n=3, seed=5)
    assert texts(completion) == ["seed 5 choice 0", "seed 5 choice 1", "seed 5 choice 2"]
    assert (completion.prompt_tokens, completion.model) == (7, "tiny-2026")
    assert (completion.billed_prompt_tokens, completion.billed_completion_tokens) == (7, 15)
    assert {candidate.seed for candidate in completion.candidates} == {5}
    assert len(server.requests) == 1


def test_tokens_of_a_candidate_are_known_only_when_it_came_alone() -> None:
    with ChatServer() as server:
        assert ask(OpenAI("tiny", server.url), n=1).candidates[0].completion_tokens == 5
        assert [c.completion_tokens for c in ask(OpenAI("tiny", server.url), n=2).candidates] == [None, None]


def test_a_server_that_ignores_n_gives_what_it_gives_by_one_request() -> None:
    with ChatServer(otherwise=chat("a")) as server:
        completion = ask(OpenAI("tiny", server.url), n=4, seed=9)
    assert completion.candidates == (Candidate("a", "stop", 5, 9),)
    assert [request.json["n"] for request in server.requests] == [4]


def test_an_endpoint_that_counts_no_tokens_is_taken_at_its_word() -> None:
    reply = chat("a")
    del reply.body["usage"]
    with ChatServer([reply]) as server:
        completion = ask(OpenAI("tiny", server.url))
    assert (completion.prompt_tokens, completion.billed_prompt_tokens, completion.billed_completion_tokens) == (
        None,
    ) * 3


def test_content_that_is_null_stays_null_with_its_reason() -> None:
    with ChatServer([chat(None, finish_reason="content_filter")]) as server:
        candidate = ask(OpenAI("tiny", server.url)).candidates[0]
    assert candidate == Candidate(None, "content_filter", 5, 0)


def test_reasoning_is_not_the_answer() -> None:
    reply = chat("SELECT 1")
    reply.body["choices"][0]["message"]["reasoning_content"] = "SELECT 2 would be wrong"
    with ChatServer([reply]) as server:
        assert texts(ask(OpenAI("tiny", server.url))) == ["SELECT 1"]


def test_content_in_typed_parts_is_joined() -> None:
    reply = chat("")
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "SELECT"},
        {"type": "text", "text": " 1"},
    ]
    reply.body["choices"][0]["message"]["content"] = parts
    with ChatServer([reply]) as server:
        assert texts(ask(OpenAI("tiny", server.url))) == ["SELECT 1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("usage", "many"), ("usage", {"prompt_tokens": "7"}), ("model", 7), ("choices", [{"message": "SELECT 1"}])],
)
def test_what_is_not_what_it_should_be_is_taken_for_nothing(field: str, value: object) -> None:
    reply = chat("SELECT 1")
    reply.body[field] = value
    with ChatServer([reply]) as server:
        completion = ask(OpenAI("tiny", server.url))
    if field == "usage":
        assert (completion.prompt_tokens, completion.billed_completion_tokens) == (None, None)
    elif field == "model":
        assert completion.model == "tiny"
    else:
        assert completion.candidates == (Candidate(None, None, 5, 0),)


def test_the_pool_does_not_limit_the_requests_in_flight() -> None:
    everybody = threading.Barrier(150)

    def together(request: Request) -> Reply:
        everybody.wait(timeout=30)
        return obedient(request)

    with ChatServer(otherwise=together) as server:
        ask(OpenAI("tiny", server.url, max_retries=0), times=150)
    assert len(server.requests) == server.most_at_once == 150


# -- what an endpoint does not take


def newer_openai(request: Request) -> Reply:
    """Refuses ``max_tokens`` and any temperature, in the words of OpenAI's reasoning models."""
    if "max_tokens" in request.json:
        message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        return failure(400, message, param="max_tokens", code="unsupported_parameter")
    if "temperature" in request.json:
        message = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) is."
        return failure(400, message, param="temperature", code="unsupported_value")
    return obedient(request)


def test_max_completion_tokens_is_learnt_once_and_remembered() -> None:
    async def run(url: str) -> None:
        backend = OpenAI("o9", url)
        await asyncio.gather(*(backend.complete(MESSAGES, 1, Sampling(max_tokens=50), {}) for _ in range(4)))
        server.requests.clear()
        await backend.complete(MESSAGES, 1, Sampling(max_tokens=50), {})
        assert backend.describe()["parameters_left_out"] == ["temperature"]
        await backend.close()

    with ChatServer(otherwise=newer_openai) as server:
        asyncio.run(run(server.url))
    assert len(server.requests) == 1
    assert server.requests[0].json["max_completion_tokens"] == 50
    assert "max_tokens" not in server.requests[0].json


def test_a_temperature_that_matters_is_never_dropped() -> None:
    with ChatServer(otherwise=newer_openai) as server:
        error = the_error(OpenAI("o9", server.url), temperature=0.0)
    assert isinstance(error, FatalBackendError)
    assert "temperature" in error.problem


@pytest.mark.parametrize("message", ["Only one completion choice is allowed", "'n' : number must be at most 1"])
def test_a_server_that_refuses_n_is_asked_for_one(message: str) -> None:
    def single(request: Request) -> Reply:
        return failure(400, message) if request.json["n"] > 1 else obedient(request)

    with ChatServer(otherwise=single) as server:
        assert len(texts(ask(OpenAI("tiny", server.url), n=3, times=1))) == 1
    assert [request.json["n"] for request in server.requests] == [3, 1]


def test_a_server_that_knows_no_seed_is_asked_without() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
    with ChatServer([Reply({"message": {"detail": detail}}, 422)], chat("SELECT 1")) as server:
        completion = ask(OpenAI("tiny", server.url))
    assert completion.candidates[0] == Candidate("SELECT 1", "stop", 5, None)
    assert ["seed" in request.json for request in server.requests] == [True, False]


# -- doctor


def test_check_says_who_answers_in_one_cheap_request() -> None:
    async def run(url: str) -> str:
        backend = OpenAI("tiny", url)
        try:
            return await backend.check()
        finally:
            await backend.close()

    with ChatServer() as server:
        line = asyncio.run(run(server.url))
        assert line.startswith(f"{server.url} answers as tiny-2026")
        assert [(r.json["n"], r.json["max_tokens"]) for r in server.requests] == [(1, 16)]
    with ChatServer(otherwise=failure(404, "no such model")) as server:
        with pytest.raises(FatalBackendError, match="no model 'tiny'"):
            asyncio.run(run(server.url))
