"""The TGI backend against a real HTTP server that misbehaves on demand: retries, and errors in one line."""

from __future__ import annotations

import email.utils
import socket
import time

import pytest
from asked import ask, texts, the_error
from servers import Reply, chat, failure
from tgi_server import TgiServer, refusal

from excot.llm.base import BackendError, FatalBackendError, UnanswerableError
from excot.llm.tgi import TGI

pytestmark = pytest.mark.usefixtures("hub_reachable")

OVERLOADED = refusal("Model is overloaded", 429, "overloaded")


@pytest.mark.parametrize(
    "trouble",
    [
        OVERLOADED,
        Reply(status=500),
        Reply(status=503),
        Reply("<html>Bad gateway</html>", 502),
        refusal("Request failed during generation: Server error", 424, "generation"),
        Reply([1], 500),
        Reply(reset=True),
        Reply(chat("cut").body, cut=30),
        Reply('{"choices": [{"mess', headers={"Content-Type": "application/json"}),
        Reply(b"\xff\xfe"),
        Reply([1]),
        Reply(""),
    ],
    ids=str,
)
def test_trouble_that_passes_is_retried(trouble: Reply, no_backoff: list[float]) -> None:
    with TgiServer([trouble, trouble]) as server:
        assert texts(ask(TGI("smol", server.root), seed=5)) == ["seed 5"]
    assert [request.json["seed"] for request in server.requests] == [5, 5, 5]
    assert len(no_backoff) == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str, no_backoff: list[float]) -> None:
    value = "90" if form == "seconds" else email.utils.formatdate(time.time() + 90, usegmt=True)
    limited = failure(429, "slow down", headers={"Retry-After": value})
    with TgiServer([limited]) as server:
        assert len(ask(TGI("smol", server.root)).candidates) == 1
    assert no_backoff == [pytest.approx(90, abs=2)]


def test_a_pause_of_a_day_ends_the_run_and_says_so(no_backoff: list[float]) -> None:
    with TgiServer([failure(429, "daily quota", headers={"Retry-After": "86400"})]) as server:
        error = the_error(TGI("smol", server.root))
    assert isinstance(error, FatalBackendError)
    assert "86400 s" in error.problem
    assert no_backoff == []


def test_being_over_the_rate_limit_fails_nothing_and_lowers_what_is_in_flight(no_backoff: list[float]) -> None:
    with TgiServer([OVERLOADED] * 30) as server:
        backend = TGI("smol", server.root, max_retries=1, concurrency=8)
        assert len(ask(backend, times=20).candidates) == 1
    assert len(server.requests) == 50
    assert server.most_at_once <= 8


@pytest.mark.parametrize("slow", [Reply(chat("late").body, delay=1.0), Reply(chat("late").body, drip=0.05)])
def test_an_answer_that_comes_too_late_is_an_error_of_the_question(slow: Reply, no_backoff: list[float]) -> None:
    with TgiServer(otherwise=slow) as server:
        error = the_error(TGI("smol", server.root, timeout=0.3, max_retries=1))
        assert len(server.requests) == 2
    assert isinstance(error, BackendError)
    assert "did not answer in time (0.3 s)" in error.problem


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (refusal("Invalid token", 401, "auth"), FatalBackendError, "TGI_API_KEY"),
        (Reply("<h1>nginx</h1>", 404), FatalBackendError, "no model 'smol' or no such path"),
        (failure(402, "You have exceeded your monthly included credits"), FatalBackendError, "credit"),
        (Reply("<!doctype html><title>Welcome</title>"), FatalBackendError, "a web page"),
        (refusal("Input validation error: `temperature` must be positive"), BackendError, "must be positive"),
        (refusal("Template error: conversation roles must alternate", kind="template_error"), BackendError, "roles"),
        (refusal("CUDA out of memory", 500, "generation"), BackendError, "CUDA out of memory"),
        (refusal("CUDA out of memory", 424, "generation"), BackendError, "CUDA out of memory"),
        (Reply({"choices": []}), BackendError, "without choices"),
        (Reply({"choices": {"text": "SELECT 1"}}), BackendError, "without choices"),
        (Reply({"choices": [{"message": "SELECT 1"}]}), BackendError, "without choices"),
        (Reply({"error": {"message": "upstream is down"}}), BackendError, "upstream is down"),
        (Reply({"choices": [1]}), BackendError, "a reply that is none"),
        (Reply("null"), BackendError, "a reply that is none"),
        (Reply('{"choices": [{"mess'), BackendError, '{"choices": [{"mess'),
        (Reply(reset=True), BackendError, "broke"),
    ],
    ids=str,
)
def test_each_failure_is_one_line_with_what_was_seen(
    reply: Reply, kind: type, words: str, no_backoff: list[float]
) -> None:
    with TgiServer(otherwise=reply) as server:
        error = the_error(TGI("smol", server.root, max_retries=1))
    assert isinstance(error, kind)
    assert words in str(error)
    assert reply.status == 200 or f"HTTP {reply.status}" in error.problem


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("`inputs` must have less than 1024 tokens. Given: 1500", 1500),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1900 `inputs` tokens and 512 `max_new_tokens`",
            1900,
        ),
        ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9043 tokens.", 9043),
    ],
)
def test_a_prompt_that_is_too_long_is_told_with_its_tokens(message: str, tokens: int) -> None:
    with TgiServer(otherwise=refusal(f"Input validation error: {message}")) as server:
        error = the_error(TGI("smol", server.root))
        assert len(server.requests) == 1
    assert isinstance(error, UnanswerableError)
    assert (error.kind, error.prompt_tokens) == ("too_long", tokens)
    assert "--max-tokens" in error.remedy


def test_a_refused_connection_is_fatal_after_the_retries(no_backoff: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = the_error(TGI("smol", f"http://127.0.0.1:{unused.getsockname()[1]}", max_retries=2))
    assert isinstance(error, FatalBackendError)
    assert "cannot connect to http://127.0.0.1" in error.problem
    assert len(no_backoff) == 2


def test_a_client_that_is_offline_by_its_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with TgiServer() as server:
        error = the_error(TGI("smol", server.root))
    assert isinstance(error, FatalBackendError)
    assert "HF_HUB_OFFLINE is set" in error.problem
    assert server.requests == []
