"""Completions from any OpenAI-compatible chat endpoint: OpenAI, Azure, vLLM, llama.cpp, OpenRouter, ..."""

from __future__ import annotations

import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

from .base import BackendError, Candidate, Completion, FatalBackendError, Message, Sampling, UnanswerableError
from .endpoint import explain, public_url, redact, refused_parameter, retry_after, server_message
from .throttle import Setback, Throttle

OPENAI_URL = "https://api.openai.com/v1"

_MAY_PASS = (408, 409, 429)  # and all from 500 on


class OpenAI:
    """A chat model behind an OpenAI-compatible endpoint.

    Keys and addresses that are not given come from the environment: ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL``, or for
    Azure ``AZURE_OPENAI_API_KEY``, ``AZURE_OPENAI_ENDPOINT`` and ``OPENAI_API_VERSION``. An endpoint of your own needs
    no key. One ``complete`` has one request at a time open.

    Requests go out as the endpoint takes them (see `Throttle`): a rate limit (429) slows the run down and fails
    nothing; server errors (5xx), timeouts, broken connections and broken replies are retried with exponential backoff;
    a server's ``Retry-After`` is honoured up to an hour. What an endpoint does not take is learnt from its first
    refusal and remembered: ``max_tokens`` becomes ``max_completion_tokens``; ``n`` becomes several requests; ``seed``,
    and a ``temperature`` or ``top_p`` of 1, are left out.

    Args:
        model: the model's name at the endpoint; for Azure the deployment's.
        base_url: the endpoint, usually ending in ``/v1``; for Azure the resource's address.
        azure: speak to Azure OpenAI.
        api_version: of Azure's API.
        timeout: seconds to wait for the whole answer to one request.
        max_retries: how often one request is tried again.
        concurrency: the most requests in flight; ``None`` leaves it to the caller.
        patience: seconds of nothing but 429 after which the endpoint is given up.

    Raises:
        FatalBackendError: a key or an address is missing or malformed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        azure: bool = False,
        api_version: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 8,
        concurrency: int | None = None,
        patience: float = 3600.0,
    ):
        import openai

        self.model = model
        self.azure = azure
        self._url = _endpoint(base_url, azure)
        self._length_name = "max_tokens"
        self._one_choice = False
        self._left_out: set[str] = set()
        self._timeout = timeout
        self._throttle = Throttle(concurrency, max_retries, patience)

        # The throttle bounds the requests in flight; the pool would keep 100 connections and open others each time.
        limits = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=None, max_keepalive_connections=None)
        patience = openai.Timeout(timeout, connect=min(timeout, 10.0))
        settings: dict[str, Any] = {
            "timeout": patience,
            "max_retries": 0,  # the throttle's business: the client would retry each request as if it were alone
            "http_client": openai.DefaultAsyncHttpxClient(limits=limits, timeout=patience),
        }
        if azure:
            remedy = "set it to 2024-10-21 or later, or give --api-version"
            self._api_version = api_version or _variable("OPENAI_API_VERSION", remedy)
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
        """Ask for ``n`` choices in one request; some endpoints give fewer.

        A candidate's ``completion_tokens`` is known only for a reply with a single choice, since ``usage`` counts all
        choices together; it is the billed count, so a reasoning model's hidden tokens are in it.
        """
        body, payload = await self._ask(self._throttle, messages, n, sampling)
        return completion_of(body, payload.get("seed"), self.model)

    async def check(self) -> str:
        """Make the cheapest request that proves address, key, model and credit at once; one line on success.

        Listing the models would prove less: some endpoints list them to anybody, Azure lists no deployments.
        """
        start = time.perf_counter()
        patient_once = Throttle(1, max_retries=1, patience=0.0)
        sampling = Sampling(max_tokens=16)
        body, _ = await self._ask(patient_once, [{"role": "user", "content": "Say OK."}], 1, sampling)
        seconds = time.perf_counter() - start
        return f"{public_url(self._url)} answers as {body.get('model') or self.model} ({seconds:.1f} s)"

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self, throttle: Throttle, messages: list[Message], n: int, sampling: Sampling
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """One answered request: a JSON body with at least one choice, and the payload that it answers."""
        while True:
            payload = self._payload(messages, n, sampling)
            body = await throttle.ask(lambda payload=payload: self._attempt(payload))
            if body is not None:
                return body, payload

    async def _attempt(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The request once; ``None`` where the endpoint does not take a parameter that the next payload lacks."""
        import anyio
        import openai

        try:
            # The client's own limit is for each read: a server that sends a byte now and then would never meet it.
            with anyio.fail_after(self._timeout):
                # Posted as it is: `chat.completions.create` would spend more time on types than on the request.
                text = await self._client.post("/chat/completions", body=payload, cast_to=str)
        except TimeoutError:
            problem = f"{public_url(self._url)} did not answer in time ({self._timeout:g} s)"
            raise Setback(BackendError(problem, "raise --timeout or lower --concurrency")) from None
        except openai.APIStatusError as error:
            if self._adapt(error, payload):
                return None
            explained = explain(error, self._url, self.model, self.azure)
            may_pass = error.status_code in _MAY_PASS or error.status_code >= 500
            if may_pass and not isinstance(explained, (FatalBackendError, UnanswerableError)):
                raise Setback(explained, error.status_code, retry_after(error)) from None
            raise explained from None
        except openai.OpenAIError as error:
            raise Setback(explain(error, self._url, self.model, self.azure)) from None
        return self._body(text)

    def _payload(self, messages: list[Message], n: int, sampling: Sampling) -> dict[str, Any]:
        payload = {
            "model": self.model,
            "messages": messages,
            "n": 1 if self._one_choice else n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            self._length_name: sampling.max_tokens,
            "seed": sampling.seed,
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
            broken = BackendError(f"{where} sent a body that is not JSON ({said!r})", "look into its log")
            raise Setback(broken) from None
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices) or not choices:
            said = server_message(body, self._url)
            raise BackendError(f"{where} sent a reply without choices ({said})", "look into its log, then start again")
        return body


def completion_of(body: dict[str, Any], seed: int | None, model: str) -> Completion:
    """What a chat completion says.

    Args:
        body: a reply with at least one choice.
        seed: what its request was seeded with, if it was.
        model: its name where the reply does not say.
    """
    usage, choices = body.get("usage"), body["choices"]
    prompt_tokens, completion_tokens = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    alone = completion_tokens if len(choices) == 1 else None
    candidates = tuple(
        Candidate(_content(choice.get("message")), _word(choice.get("finish_reason")), alone, seed)
        for choice in choices
    )
    return Completion(candidates, prompt_tokens, _word(body.get("model")) or model, prompt_tokens, completion_tokens)


# What endpoints send is taken for what it should be where it is that, else for nothing: it ends in typed columns.


def _content(message: Any) -> str | None:
    """The answer's text; ``reasoning_content`` is not the answer. Some endpoints send a list of typed parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return _word(content)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count >= 0 else None


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
