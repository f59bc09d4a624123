"""The OpenAI backend against a real HTTP server that misbehaves on demand: retries, and errors in one line."""

from __future__ import annotations

import email.utils
import socket
import time

import pytest
from asked import ask, the_error
from servers import ChatServer, Reply, chat, failure

from excot.llm.base import BackendError, FatalBackendError, UnanswerableError
from excot.llm.openai import OpenAI

pytestmark = pytest.mark.usefixtures("clean_environment")


# -- retries


@pytest.mark.parametrize("trouble", [Reply(status=503), failure(429, "slow down"), Reply(reset=True)])
def test_trouble_that_passes_is_retried(trouble: Reply, no_backoff: list[float]) -> None:
    with ChatServer([trouble, trouble]) as server:
        assert len(ask(OpenAI("tiny", server.url)).candidates) == 1
    assert len(server.requests) == 3
    assert 0.3 < no_backoff[0] < no_backoff[1] < 2  # exponential, with jitter


def test_a_timeout_is_retried_and_ends_as_an_error_of_the_question(no_backoff: list[float]) -> None:
    slow = chat("late")
    slow.delay = 0.5
    with ChatServer(otherwise=slow) as server:
        error = the_error(OpenAI("tiny", server.url, timeout=0.1, max_retries=1))
    assert isinstance(error, BackendError)
    assert "in time" in error.problem
    assert len(server.requests) == 2


@pytest.mark.parametrize("seconds", [3, 90, 600])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(seconds: int, form: str, no_backoff: list[float]) -> None:
    value = str(seconds) if form == "seconds" else email.utils.formatdate(time.time() + seconds, usegmt=True)
    with ChatServer([failure(429, "slow down", headers={"Retry-After": value})]) as server:
        assert len(ask(OpenAI("tiny", server.url)).candidates) == 1
    assert no_backoff == [pytest.approx(seconds, abs=2)]


@pytest.mark.parametrize("value", ["-5", "nan", "inf", "soon", ""])
def test_a_pause_that_is_none_is_chosen_by_ourselves(value: str, no_backoff: list[float]) -> None:
    with ChatServer([failure(429, "slow down", headers={"Retry-After": value})]) as server:
        ask(OpenAI("tiny", server.url))
    assert len(no_backoff) == 1 and 0.3 < no_backoff[0] < 0.6


def test_milliseconds_are_the_better_word(no_backoff: list[float]) -> None:
    headers = {"Retry-After": "1", "retry-after-ms": "150"}
    with ChatServer([failure(429, "slow down", headers=headers)]) as server:
        ask(OpenAI("tiny", server.url))
    assert no_backoff == [pytest.approx(0.15, abs=0.05)]


def test_a_pause_of_a_day_ends_the_run_and_says_so(no_backoff: list[float]) -> None:
    with ChatServer([failure(429, "daily quota", headers={"Retry-After": "86400"})]) as server:
        error = the_error(OpenAI("tiny", server.url))
    assert isinstance(error, FatalBackendError)
    assert "86400 s" in error.problem
    assert no_backoff == []


def test_a_request_that_alone_is_over_the_limit_is_too_long() -> None:
    message = (
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 41237. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    with ChatServer(otherwise=failure(429, message, code="rate_limit_exceeded")) as server:
        error = the_error(OpenAI("tiny", server.url))
    assert isinstance(error, UnanswerableError)
    assert error.kind == "too_long"
    assert len(server.requests) == 1


def test_nothing_but_rate_limits_ends_the_run_when_patience_does() -> None:
    with ChatServer(otherwise=failure(429, "slow down", headers={"Retry-After": "0.05"})) as server:
        error = the_error(OpenAI("tiny", server.url, max_retries=1, patience=0.3))
    assert isinstance(error, FatalBackendError)
    assert "is over its rate limit (HTTP 429: slow down), after 0 s without one answer to anybody" in error.problem
    assert 3 < len(server.requests) < 10  # the retries are for other troubles


def test_an_answer_that_drips_is_too_late_as_a_whole() -> None:
    with ChatServer(otherwise=Reply(chat("slow").body, drip=0.05)) as server:
        error = the_error(OpenAI("tiny", server.url, timeout=0.4, max_retries=0))
    assert isinstance(error, BackendError)
    assert "did not answer in time (0.4 s)" in error.problem


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        (
            "This model's maximum context length is 4097 tokens. However, you requested 4203 tokens (3703 in the "
            "messages, 500 in the completion).",
            3703,
        ),
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9043 tokens.", 9043),
        (
            "This model's maximum context length is 2048 tokens. However, your request has 80 input tokens plus 2045 "
            "'max_tokens'.",
            80,
        ),
        ("request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it", 9000),
        ("max_tokens must be at least 1, got -186.", None),
    ],
)
def test_a_prompt_that_is_too_long_is_told_with_its_tokens_where_they_are_counted(
    message: str, tokens: int | None
) -> None:
    with ChatServer(otherwise=failure(400, message)) as server:
        error = the_error(OpenAI("tiny", server.url))
    assert isinstance(error, UnanswerableError)
    assert (error.kind, error.prompt_tokens) == ("too_long", tokens)
    assert len(server.requests) == 1


# -- errors


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (failure(401, "Incorrect API key"), FatalBackendError, "OPENAI_API_KEY"),
        (failure(403, "Country not supported"), FatalBackendError, "Country not supported"),
        (failure(404, "The model `tiny` does not exist", code="model_not_found"), FatalBackendError, "'tiny'"),
        (Reply("<h1>nginx</h1>", 404), FatalBackendError, "/v1"),
        (failure(429, "You exceeded your quota", code="insufficient_quota"), FatalBackendError, "credit"),
        (failure(402, "Insufficient balance"), FatalBackendError, "credit"),
        (Reply("<!doctype html><title>Welcome</title>"), FatalBackendError, "it usually ends in /v1"),
        (failure(400, "max context is 10", code="context_length_exceeded"), UnanswerableError, "too long"),
        (
            failure(
                400, "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length"
            ),
            UnanswerableError,
            "--max-tokens",
        ),
        (failure(400, "flagged", code="content_filter", param="prompt"), UnanswerableError, "content filter"),
        (failure(400, "messages must alternate"), BackendError, "messages must alternate"),
        (failure(500, "CUDA out of memory"), BackendError, "CUDA out of memory"),
        (failure(408, "too slow"), BackendError, "too slow"),
        (Reply('{"choices": [{"mess', headers={"Content-Type": "application/json"}), BackendError, "not JSON"),
        (Reply(""), BackendError, "not JSON"),
        (Reply({"choices": []}), BackendError, "without choices"),
        (Reply({"error": {"message": "upstream is down"}}), BackendError, "upstream is down"),
        (Reply([1]), BackendError, "without choices"),
        (Reply(reset=True), BackendError, "broke"),
    ],
)
def test_each_failure_is_one_line_with_what_was_seen(
    reply: Reply, kind: type, words: str, no_backoff: list[float]
) -> None:
    with ChatServer(otherwise=reply) as server:
        error = the_error(OpenAI("tiny", server.url, max_retries=1), max_tokens=9)
        retried = reply.reset or reply.status == 408 or reply.status >= 500 or words == "not JSON"
        assert len(server.requests) == 1 + retried
    assert isinstance(error, kind)
    assert words in str(error)
    assert reply.status == 200 or f"HTTP {reply.status}" in error.problem


def test_a_long_message_of_the_server_is_cut() -> None:
    with ChatServer(otherwise=failure(400, "word " * 1000)) as server:
        assert len(str(the_error(OpenAI("tiny", server.url)))) < 400


def test_a_refused_connection_is_fatal_after_the_retries(no_backoff: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = the_error(OpenAI("tiny", f"http://127.0.0.1:{unused.getsockname()[1]}/v1", max_retries=2))
    assert isinstance(error, FatalBackendError)
    assert "cannot connect to http://127.0.0.1" in error.problem
    assert len(no_backoff) == 2


def test_a_name_that_does_not_resolve_is_fatal(no_backoff: list[float]) -> None:
    error = the_error(OpenAI("tiny", "http://no-such-host.invalid/v1", max_retries=0))
    assert isinstance(error, FatalBackendError)
    assert "cannot connect to http://no-such-host.invalid/v1" in error.problem


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:x/v1"]
)
def test_an_address_that_is_none_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(FatalBackendError, match="http://HOST:PORT/v1"):
        OpenAI("tiny", url)
