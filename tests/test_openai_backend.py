"""The OpenAI backend against a real HTTP server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import socket
import threading
import time
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import ChatServer, Reply, Request, chat, failure, obedient

from excot.llm.base import BackendError, Candidate, Completion, FatalBackendError, Sampling
from excot.llm.endpoint import public_url, redact
from excot.llm.openai import OpenAI, _derived_seed

MESSAGES = [{"role": "user", "content": "How many singers are there?"}]
KEY = "sk-proj-Abc123_secret-Xyz789"
VARIABLES = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_VERSION", "OPENAI_ORG_ID"),
    *("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_AD_TOKEN"),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses asked for; none of them is really made."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds > 0:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("asyncio.sleep", note)
    monkeypatch.setattr("anyio.sleep", note)
    return pauses


def ask(backend: OpenAI, n: int = 1, times: int = 1, **sampling: Any) -> Completion:
    """``complete`` once, or ``times`` at the same time (the last answer is returned), then ``close``."""

    async def run() -> Completion:
        try:
            calls = (backend.complete(MESSAGES, n, Sampling(**sampling), {}) for _ in range(times))
            return (await asyncio.gather(*calls))[-1]
        finally:
            await backend.close()

    return asyncio.run(run())


def texts(completion: Completion) -> list[str | None]:
    return [candidate.text for candidate in completion.candidates]


def the_error(backend: OpenAI, n: int = 1, **sampling: Any) -> BackendError | FatalBackendError:
    with pytest.raises((BackendError, FatalBackendError)) as caught:
        ask(backend, n, **sampling)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value


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
    assert len(server.requests) == 1


def test_tokens_of_a_candidate_are_known_only_when_it_came_alone() -> None:
    with ChatServer() as server:
        assert ask(OpenAI("tiny", server.url), n=1).candidates[0].completion_tokens == 5
        assert [c.completion_tokens for c in ask(OpenAI("tiny", server.url), n=2).candidates] == [None, None]


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds_one_request_at_a_time() -> None:
    with ChatServer(otherwise=lambda request: chat(f"seed {request.json['seed']}")) as server:
        completion = ask(OpenAI("tiny", server.url), n=4, seed=5)
    assert texts(completion) == [f"seed {seed}" for seed in (5, *(_derived_seed(5, k) for k in (1, 2, 3)))]
    assert len(set(texts(completion))) == 4
    assert [request.json["n"] for request in server.requests] == [4, 3, 2, 1]
    assert [c.completion_tokens for c in completion.candidates] == [5] * 4
    assert server.most_at_once == 1


def test_more_choices_than_asked_for_are_cut() -> None:
    with ChatServer([chat("a", "b", "c")]) as server:
        assert texts(ask(OpenAI("tiny", server.url), n=2)) == ["a", "b"]


@given(st.integers(0, 2**63 - 1), st.integers(1, 500))
def test_derived_seeds_are_31_bit_and_not_the_neighbours(seed: int, request: int) -> None:
    derived = _derived_seed(seed, request)
    assert 0 <= derived < 2**31
    assert derived == _derived_seed(seed, request) != _derived_seed(seed, request + 1)


def test_content_that_is_null_stays_null_with_its_reason() -> None:
    with ChatServer([chat(None, finish_reason="content_filter")]) as server:
        candidate = ask(OpenAI("tiny", server.url)).candidates[0]
    assert candidate == Candidate(None, "content_filter", 5)


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
def test_a_server_that_refuses_n_is_asked_n_times(message: str) -> None:
    def single(request: Request) -> Reply:
        return failure(400, message) if request.json["n"] > 1 else obedient(request)

    with ChatServer(otherwise=single) as server:
        assert len(set(texts(ask(OpenAI("tiny", server.url), n=3)))) == 3
    assert [request.json["n"] for request in server.requests] == [3, 1, 1, 1]


def test_a_server_that_knows_no_seed_is_asked_without() -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]
    with ChatServer([Reply({"message": {"detail": detail}}, 422)], chat("SELECT 1")) as server:
        assert texts(ask(OpenAI("tiny", server.url))) == ["SELECT 1"]
    assert ["seed" in request.json for request in server.requests] == [True, False]


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


def test_a_pause_of_a_day_ends_the_run_and_says_so(no_backoff: list[float]) -> None:
    with ChatServer([failure(429, "daily quota", headers={"Retry-After": "86400"})]) as server:
        error = the_error(OpenAI("tiny", server.url))
    assert isinstance(error, FatalBackendError)
    assert "86400 s" in error.problem
    assert no_backoff == []


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
        (failure(400, "max context is 10", code="context_length_exceeded"), BackendError, "too long"),
        (
            failure(
                400, "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length"
            ),
            BackendError,
            "--max-tokens",
        ),
        (failure(400, "flagged", code="content_filter", param="prompt"), BackendError, "content filter"),
        (failure(400, "messages must alternate"), BackendError, "messages must alternate"),
        (failure(500, "CUDA out of memory"), BackendError, "CUDA out of memory"),
        (failure(429, "slow down"), BackendError, "rate limit"),
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
        retried = reply.reset or reply.status == 429 or reply.status >= 500
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


# -- keys and addresses


def test_a_missing_key_is_named() -> None:
    with pytest.raises(FatalBackendError, match=r"^OPENAI_API_KEY is not set: "):
        OpenAI("gpt")


@pytest.mark.parametrize("name", ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"])
def test_each_variable_that_azure_misses_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://somewhere.openai.azure.com")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    monkeypatch.delenv(name)
    with pytest.raises(FatalBackendError, match=f"^{name} is not set: "):
        OpenAI("gpt", azure=True)


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        ask(OpenAI("tiny"))
    assert server.requests[0].headers["authorization"] == "Bearer EMPTY"


def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"  {KEY}\n")
    with ChatServer() as server:
        ask(OpenAI("tiny", server.url))
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_key_with_a_typographic_quote_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "“hidden-value”")
    with pytest.raises(FatalBackendError, match="OPENAI_API_KEY holds characters") as caught:
        OpenAI("gpt")
    assert "hidden" not in str(caught.value)


def test_azure_asks_the_deployment_with_version_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        backend = OpenAI("my-deployment", azure=True)
        ask(backend, n=2)
    request = server.requests[0]
    assert request.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "0123456789abcdef"
    assert backend.describe()["azure"] is True
    assert backend.describe()["api_version"] == "2024-10-21"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 200])
@pytest.mark.parametrize("how", ["key", "azure key", "password"])
@pytest.mark.parametrize("padding", [0, 170])  # whole, and cut in the middle by the limit on a message's length
def test_a_server_that_echoes_our_credentials_leaks_nothing(
    status: int, how: str, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(request: Request) -> Reply:
        seen = [request.headers.get("authorization"), request.headers.get("api-key")]
        return Reply({"error": {"message": f"{'x' * padding} {seen}"}}, status)

    azure_key = "0123456789abcdef0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", azure_key)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer(otherwise=echo) as server:
        url = server.url.replace("://", "://user:pass-word@") if how == "password" else server.url
        backend = OpenAI("tiny", url, azure=how == "azure key", max_retries=0)
        error = the_error(backend)
        sent = str(server.requests[0].headers)
    secret = {"key": KEY, "azure key": azure_key, "password": base64.b64encode(b"user:pass-word").decode()}[how]
    assert secret in sent
    shown = f"{error} {error.args} {backend.describe()} {''.join(traceback.format_exception(error))}"
    assert "[redacted" in shown
    for part in (secret[:12], secret[-12:], "pass-word"):
        assert part not in shown


def test_redaction_covers_keys_by_name_by_look_and_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "an-opaque-value-7")
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    seen = redact(
        "an-opaque-value-7, abc, sk-or-v1-123456, Bearer eyJhb.x, hunter22, q-123",
        "https://me:hunter22@host/v1?api-key=q-123",
    )
    assert seen == ", ".join(["[redacted]"] * 3 + ["Bearer [redacted]"] + ["[redacted]"] * 2)


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=60))
def test_anything_that_looks_like_a_key_is_redacted(tail: str) -> None:
    assert tail not in redact(f"You sent sk-{tail}.")


def test_a_shown_address_has_neither_user_nor_query() -> None:
    assert public_url("https://me:pw@host.example:8443/v1/?key=1#x") == "https://host.example:8443/v1"
    assert public_url("http://[::1]:8000/v1") == "http://[::1]:8000/v1"


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
