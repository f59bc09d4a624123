"""Keys and addresses of endpoints: where they come from, and that no error shows them."""

from __future__ import annotations

import base64
import traceback

import pytest
from asked import ask, the_error
from hypothesis import given
from hypothesis import strategies as st
from planted import AZURE_KEY, OPENAI_KEY, PASSWORD, holds
from servers import ChatServer, Reply, Request

from excot.llm.base import FatalBackendError
from excot.llm.endpoint import public_url, redact
from excot.llm.openai import OpenAI

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(FatalBackendError, match=r"^OPENAI_API_KEY is not set: "):
        OpenAI("gpt")


@pytest.mark.parametrize("name", ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"])
def test_each_variable_that_azure_misses_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", AZURE_KEY)
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
    monkeypatch.setenv("OPENAI_API_KEY", f"  {OPENAI_KEY}\n")
    with ChatServer() as server:
        ask(OpenAI("tiny", server.url))
    assert server.requests[0].headers["authorization"] == f"Bearer {OPENAI_KEY}"


def test_a_key_with_a_typographic_quote_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"“{OPENAI_KEY}”")
    with pytest.raises(FatalBackendError, match="OPENAI_API_KEY holds characters") as caught:
        OpenAI("gpt")
    assert not holds(str(caught.value))


def test_azure_asks_the_deployment_with_version_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", AZURE_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer() as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
        backend = OpenAI("my-deployment", azure=True)
        ask(backend, n=2)
    request = server.requests[0]
    assert request.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == AZURE_KEY
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

    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", AZURE_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    with ChatServer(otherwise=echo) as server:
        url = server.url.replace("://", f"://user:{PASSWORD}@") if how == "password" else server.url
        backend = OpenAI("tiny", url, azure=how == "azure key", max_retries=0, patience=0.0)
        error = the_error(backend)
        sent = str(server.requests[0].headers)
    basic = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    secret = {"key": OPENAI_KEY, "azure key": AZURE_KEY, "password": basic}[how]
    assert secret in sent
    shown = f"{error} {error.args} {backend.describe()} {''.join(traceback.format_exception(error))}"
    assert "[redacted" in shown
    assert not holds(shown)
    for part in (secret[:12], secret[-12:]):
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
