"""The TGI backend through the real client of huggingface_hub: what it asks, what it keeps, which key it shows."""

from __future__ import annotations

import json
import logging

import pytest
from asked import MESSAGES, ask, texts, the_error
from chain import make_run, rows_of
from servers import Reply, Request, chat, failure
from tgi_server import INFO, TgiServer, refusal

from excot.builders.generations import generate
from excot.config import GenerateConfig
from excot.llm.base import Candidate, FatalBackendError
from excot.llm.tgi import TGI

pytestmark = pytest.mark.usefixtures("hub_reachable")


# -- requests


@pytest.mark.parametrize("address", ["root", "url"])
def test_a_question_is_one_request_for_a_chat_completion(address: str) -> None:
    with TgiServer() as server:
        completion = ask(TGI("smol", getattr(server, address)), n=2, seed=5, temperature=0.7, max_tokens=99)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    expected = {"model": "smol", "messages": MESSAGES, "max_tokens": 99, "temperature": 0.7, "seed": 5, "n": 2}
    assert request.json == {**expected, "stream": False}
    assert completion.candidates == (Candidate("seed 5", "stop", 5, 5),)  # it gives one answer whatever n says
    assert (completion.prompt_tokens, completion.billed_completion_tokens) == (7, 5)
    assert completion.model == "tiny-2026"


def test_a_server_that_knows_n_gives_all_answers_at_once() -> None:
    with TgiServer(otherwise=lambda request: chat(*"abc"[: request.json["n"]])) as server:
        completion = ask(TGI("smol", server.root), n=3)
    assert texts(completion) == ["a", "b", "c"]
    assert completion.candidates[0].completion_tokens is None  # the usage counts all together


def test_top_p_is_sent_only_where_it_cuts() -> None:
    with TgiServer() as server:
        ask(TGI("smol", server.root), top_p=1.0)
        ask(TGI("smol", server.root), top_p=0.9)
    assert ["top_p" in request.json for request in server.requests] == [False, True]  # TGI refuses a top_p of 1


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("n", refusal("Input validation error: `n` is not supported")),
        ("n", failure(400, "Only one completion choice is allowed", param="n")),
        ("seed", failure(400, "Unsupported parameter: 'seed'", param="seed")),
    ],
)
def test_what_an_endpoint_refuses_is_left_out_from_then_on(name: str, reply: Reply) -> None:
    def picky(request: Request) -> Reply:
        return reply if name in request.json else chat("SELECT 1")

    with TgiServer(otherwise=picky) as server:
        backend = TGI("smol", server.root)
        completion = ask(backend, n=2)
    assert [name in request.json for request in server.requests] == [True, False]
    assert completion.candidates[0].seed == (None if name == "seed" else 0)
    assert backend.describe()["parameters_left_out"] == [name]


@pytest.mark.parametrize(
    ("reason", "expected"), [("eos_token", "stop"), ("stop_sequence", "stop"), ("length", "length"), (None, None)]
)
def test_finish_reasons_are_said_in_one_language(reason: str, expected: str) -> None:
    with TgiServer([chat("a", finish_reason=reason)]) as server:
        assert ask(TGI("smol", server.root)).candidates[0].finish_reason == expected


def test_content_that_is_null_stays_null() -> None:
    with TgiServer([chat(None, finish_reason="content_filter")]) as server:
        assert ask(TGI("smol", server.root)).candidates[0] == Candidate(None, "content_filter", 5, 0)


# -- what is recorded


def test_the_served_model_and_its_revision_are_described_once_it_has_answered() -> None:
    with TgiServer() as server:
        backend = TGI(base_url=server.url)
        assert backend.describe()["served"] is None
        ask(backend, times=3)
    assert server.looks == 1
    assert backend.describe() == {
        "backend": "tgi",
        "endpoint": server.url,
        "provider": None,
        "served": {name: INFO[name] for name in ("model_id", "model_sha", "version")},
        "parameters_left_out": [],
    }


@pytest.mark.parametrize("info", [Reply("no such page", 404), Reply("<html>"), Reply([1]), Reply(reset=True)])
def test_a_server_that_says_nothing_of_itself_is_asked_all_the_same(info: Reply) -> None:
    with TgiServer(info=info) as server:
        backend = TGI("smol", server.root)
        assert texts(ask(backend)) == ["seed 0"]
    assert backend.describe()["served"] is None


def test_every_sample_of_a_run_is_a_seeded_request_of_its_own(tmp_path) -> None:
    out = make_run(tmp_path, 3)
    options = {"backend": "tgi", "model": "smol", "n": 3, "out": out}
    with TgiServer() as server:
        generate(GenerateConfig(base_url=server.root, **options))
    rows = rows_of(out, "generations")
    assert len(server.requests) == 9
    for row in rows:
        seeds = [candidate["seed"] for candidate in row["candidates"]]
        assert [candidate["text"] for candidate in row["candidates"]] == [f"seed {seed}" for seed in seeds]
        assert len(set(seeds)) == 3
        assert seeds[0] == json.loads(row["sampling"])["seed"]
    assert len({candidate["seed"] for row in rows for candidate in row["candidates"]}) == 9


def test_a_prompt_that_is_too_long_is_recorded_with_its_tokens_and_the_run_goes_on(tmp_path) -> None:
    def short(request: Request) -> Reply:
        if "number 001" in request.json["messages"][-1]["content"]:
            words = "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3900 `inputs` tokens and 512 "
            return refusal(f"Input validation error: {words}`max_new_tokens`")
        return chat("SELECT 1")

    out = make_run(tmp_path, 3)
    with TgiServer(otherwise=short) as server:
        generate(GenerateConfig(out=out, backend="tgi", base_url=server.root, n=1))
    rows = rows_of(out, "generations")
    assert [row["failure"] for row in rows] == [None, "too_long", None]
    assert rows[1]["prompt_tokens"] == 3900
    assert [len(row["candidates"]) for row in rows] == [1, 0, 1]


# -- keys and addresses


def test_the_hubs_token_is_not_shown_to_a_server_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    with TgiServer() as server:
        ask(TGI("smol", server.root))
        monkeypatch.setenv("TGI_API_KEY", " local-key\n")
        ask(TGI("smol", server.root))
    shown = [request.headers["authorization"] for request in server.requests]
    assert shown == ["Bearer none", "Bearer local-key"]


@pytest.mark.parametrize("provider", [None, "hf-inference"])
def test_the_hubs_providers_are_asked_with_its_token(provider: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    with TgiServer() as server:
        # The router's address is built into the client.
        providers = "huggingface_hub.inference._providers"
        monkeypatch.setattr(f"{providers}.CONVERSATIONAL_AUTO_ROUTER.base_url", server.root)
        monkeypatch.setattr("huggingface_hub.constants.INFERENCE_PROXY_TEMPLATE", f"{server.root}/{{provider}}")
        monkeypatch.setattr(f"{providers}.hf_inference._check_supported_task", lambda model, task: None)
        backend = TGI("org/smol", provider=provider)
        ask(backend)
    (request,) = server.requests
    assert request.headers["authorization"] == "Bearer hf_abcdefgh12345678"
    assert request.json["model"] == "org/smol"
    assert backend.describe()["endpoint"] == "https://router.huggingface.co"
    assert server.looks == 0


def test_without_a_token_the_hubs_providers_are_not_asked() -> None:
    with pytest.raises(FatalBackendError, match=r"no token for the Hub: export HF_TOKEN=.*hf auth login"):
        TGI("org/smol")


def test_an_unknown_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    error = the_error(TGI("org/smol", provider="no-such-provider"))
    assert isinstance(error, FatalBackendError)
    assert "'no-such-provider' not supported" in error.problem


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"base_url": "http://h", "provider": "together"}, "two addresses"),
        ({}, "--model NAME"),
        ({"base_url": "localhost:8080"}, "http://HOST:PORT"),
        ({"base_url": "http://user:secret@host:x"}, "'host:x' is not a web address"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_any_request(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(FatalBackendError) as caught:
        TGI(**arguments)
    assert words in str(caught.value)


def test_no_error_and_no_log_shows_a_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TGI_API_KEY", "local-key-123")
    with TgiServer(otherwise=refusal("Bearer local-key-123 may not: local-key-123", 403)) as server:
        error = the_error(TGI("smol", server.root))
    assert "set TGI_API_KEY to a key" in error.remedy
    assert "local-key-123" not in str(error) + caplog.text


def test_a_key_with_a_line_break_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGI_API_KEY", "hidden\nvalue")
    with pytest.raises(FatalBackendError, match="TGI_API_KEY holds characters") as caught:
        TGI("smol", "http://127.0.0.1:1")
    assert "hidden" not in str(caught.value)
