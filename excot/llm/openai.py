"""Completions from any OpenAI-compatible chat endpoint: OpenAI, Azure, vLLM, llama.cpp, OpenRouter, ..."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

from .base import BackendError, Candidate, Completion, FatalBackendError, Message, Sampling
from .endpoint import LONGEST_WAIT, explain, public_url, redact, refused_parameter, retry_after, server_message

OPENAI_URL = "https://api.openai.com/v1"

_CLIENT_WAITS = 120
"""The longest ``Retry-After``, in seconds, that the openai client itself waits for; with a longer one it gives up."""


class OpenAI:
    """A chat model behind an OpenAI-compatible endpoint.

    Keys and addresses that are not given come from the environment: ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``, or for
    Azure ``AZURE_OPENAI_API_KEY``, ``AZURE_OPENAI_ENDPOINT`` and ``OPENAI_API_VERSION``. An endpoint of your own needs
    no key. How many requests are in flight is the caller's to bound: one ``complete`` has one request at a time open.

    Rate limits (429), server errors (5xx), timeouts and broken connections are retried with exponential backoff, and
    a server's ``Retry-After`` is honoured up to an hour. What an endpoint does not take is learnt from its first
    refusal and remembered: ``max_tokens`` becomes ``max_completion_tokens``; ``n`` becomes several requests; ``seed``,
    and a ``temperature`` or ``top_p`` of 1, are left out.

    Args:
        model: the model's name at the endpoint; for Azure the deployment's.
        base_url: the endpoint, usually ending in ``/v1``; for Azure the resource's address.
        azure: speak to Azure OpenAI.
        timeout: seconds to wait for an answer to one request.
        max_retries: how often one request is tried again.

    Raises:
        FatalBackendError: a key or an address is missing or malformed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        azure: bool = False,
        timeout: float = 600.0,
        max_retries: int = 8,
    ):
        import openai

        self.model = model
        self.azure = azure
        self._url = _endpoint(base_url, azure)
        self._length_name = "max_tokens"
        self._one_choice = False
        self._left_out: set[str] = set()

        # The caller bounds the requests in flight; the pool would keep 100 connections and open the others each time.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=None)
        patience = openai.Timeout(timeout, connect=min(timeout, 10.0))
        settings: dict[str, Any] = {
            "timeout": patience,
            "max_retries": max_retries,
            "http_client": openai.DefaultAsyncHttpxClient(limits=limits, timeout=patience),
        }
        if azure:
            self._api_version: str | None = _variable("OPENAI_API_VERSION", "set it to 2024-10-21 or later")
            self._client: openai.AsyncOpenAI = openai.AsyncAzureOpenAI(
                azure_endpoint=self._url, api_key=_key(self._url, azure), api_version=self._api_version, **settings
            )
        else:
            self._api_version = None
            self._client = openai.AsyncOpenAI(base_url=self._url, api_key=_key(self._url, azure), **settings)

    def describe(self) -> dict[str, Any]:
        """What a manifest may record of this endpoint: nothing in it is secret."""
        return {
            "backend": "openai",
            "endpoint": public_url(self._url),
            "azure": self.azure,
            "api_version": self._api_version,
            "parameters_left_out": sorted(self._left_out),
        }

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """Ask for ``n`` choices; where the endpoint gives fewer, ask again, each time with another derived seed.

        ``completion_tokens`` is known only for a reply with a single choice, since ``usage`` counts all choices
        together; it is the billed count, so a reasoning model's hidden tokens are in it.
        """
        candidates: list[Candidate] = []
        prompt_tokens, model, requests = None, self.model, 0
        while len(candidates) < n:
            seed = sampling.seed if requests == 0 else _derived_seed(sampling.seed, requests)
            body = await self._ask(self._client, messages, n - len(candidates), sampling, seed)
            usage = body.get("usage") or {}
            if requests == 0:
                prompt_tokens, model = usage.get("prompt_tokens"), body.get("model") or self.model
            candidates += _candidates(body["choices"], usage)
            requests += 1
        return Completion(tuple(candidates[:n]), prompt_tokens, model)

    async def check(self) -> str:
        """Make the cheapest request that proves address, key, model and credit at once; one line on success.

        Listing the models would prove less: some endpoints list them to anybody, Azure lists no deployments.
        """
        start = time.perf_counter()
        patient_once = self._client.with_options(max_retries=1)
        sampling = Sampling(max_tokens=16)
        body = await self._ask(patient_once, [{"role": "user", "content": "Say OK."}], 1, sampling, 0)
        seconds = time.perf_counter() - start
        return f"{public_url(self._url)} answers as {body.get('model') or self.model} ({seconds:.1f} s)"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self, client: Any, messages: list[Message], n: int, sampling: Sampling, seed: int
    ) -> dict[str, Any]:
        """One answered request: a JSON body with at least one choice."""
        import openai

        waits = 0
        while True:
            payload = self._payload(messages, n, sampling, seed)
            try:
                raw = await client.chat.completions.with_raw_response.create(**payload)
                return self._body(raw.text)
            except openai.APIStatusError as error:
                if self._adapt(error, payload):
                    continue
                wait = retry_after(error) if error.status_code in (429, 503) else 0.0
                if waits == client.max_retries or not _CLIENT_WAITS < wait <= LONGEST_WAIT:
                    raise explain(error, self._url, self.model, self.azure) from None
                waits += 1
            except openai.OpenAIError as error:
                raise explain(error, self._url, self.model, self.azure) from None
            await asyncio.sleep(wait)

    def _payload(self, messages: list[Message], n: int, sampling: Sampling, seed: int) -> dict[str, Any]:
        payload = {
            "model": self.model,
            "messages": messages,
            "n": 1 if self._one_choice else n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._length_name: sampling.max_tokens,
            "seed": seed,
        }
        return {name: value for name, value in payload.items() if name not in self._left_out}

    def _adapt(self, error: Any, payload: dict[str, Any]) -> bool:
        """Learn from a refusal; true when ``payload`` held what was refused and the next one will not.

        Decided by what was sent, not by what is known: of many requests in flight all are refused, one is the first.
        """
        name = refused_parameter(error)
        if name not in payload:
            return False
        if name == "max_tokens":
            self._length_name = "max_completion_tokens"
        elif name == "n" and payload["n"] > 1:
            self._one_choice = True
        elif name == "seed" or (name in ("temperature", "top_p") and payload[name] == 1):
            self._left_out.add(name)
        else:
            return False
        return True

    def _body(self, text: str) -> dict[str, Any]:
        where = public_url(self._url)
        if text.lstrip().startswith("<"):
            raise FatalBackendError(
                f"{where} sent a web page, not a completion ({server_message(text, self._url)})",
                "check --base-url, it usually ends in /v1",
            )
        try:
            body = json.loads(text)
        except ValueError:
            said = server_message(text, self._url)
            raise BackendError(f"{where} sent a body that is not JSON ({said!r})", "look into its log") from None
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices) or not choices:
            said = server_message(body, self._url)
            raise BackendError(f"{where} sent a reply without choices ({said})", "look into its log, then start again")
        return body


def _candidates(choices: list[dict[str, Any]], usage: dict[str, Any]) -> list[Candidate]:
    tokens = usage.get("completion_tokens") if len(choices) == 1 else None
    return [Candidate(_content(choice.get("message")), choice.get("finish_reason"), tokens) for choice in choices]


def _content(message: dict[str, Any] | None) -> str | None:
    """The answer's text; ``reasoning_content`` is not the answer. Some endpoints send a list of typed parts."""
    content = (message or {}).get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    return content


def _derived_seed(seed: int, request: int) -> int:
    """The seed of a question's further requests: a hash, since ``seed + 1`` may be another question's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{request}".encode()).digest()[:4], "big") >> 1


def _variable(name: str, remedy: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise FatalBackendError(f"{name} is not set", remedy)
    return value


def _endpoint(base_url: str | None, azure: bool) -> str:
    if azure:
        url = base_url or _variable("AZURE_OPENAI_ENDPOINT", "set it to https://RESOURCE.openai.azure.com")
    else:
        url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        well_formed = False
    if not well_formed:
        raise FatalBackendError(
            f"the address {redact(url.rsplit('@')[-1])!r} is not a web address", "write it as http://HOST:PORT/v1"
        )
    return url


def _key(url: str, azure: bool) -> str | None:
    """The key to send; ``None`` leaves Azure's own token variable to the client."""
    if azure and os.environ.get("AZURE_OPENAI_AD_TOKEN", "").strip():
        return None
    name = "AZURE_OPENAI_API_KEY" if azure else "OPENAI_API_KEY"
    host = urlsplit(url).hostname or ""
    if azure or host == "api.openai.com" or host.endswith(".api.openai.com"):
        key = _variable(name, f"export {name}=..., or give the --base-url of a server of your own")
    else:
        key = os.environ.get(name, "").strip() or "EMPTY"  # vLLM and llama.cpp ask for none; the header must be there
    if not (key.isascii() and key.isprintable()):
        raise FatalBackendError(f"{name} holds characters that no key has", "set it again, as plain text on one line")
    return key
