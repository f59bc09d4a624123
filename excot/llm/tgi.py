"""Completions from a text-generation-inference server, or from the Hub's inference providers."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .base import BackendError, Completion, FatalBackendError, Message, Sampling, UnanswerableError
from .endpoint import explain, public_url, refused_parameter, retry_after, server_message
from .openai import completion_of
from .throttle import Setback, Throttle

if TYPE_CHECKING:
    from openai import APIStatusError

_HUB = "https://router.huggingface.co"
_OF_THE_HUB = ("huggingface.co", "huggingface.cloud", "hf.space")
"""Hosts that, with all below them, may see the Hub's token."""

_MAY_PASS = (408, 409, 424, 429)  # and all from 500 on; 424 is the server's for an answer that broke off

_TOO_LONG = re.compile(
    r"`inputs` must have less than \d+ tokens|tokens \+ `max_new_tokens` must be <=|inputs? tokens \+ max_new_tokens"
)
_GIVEN = re.compile(r"Given: (\d+)")
_FINISH_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}


class TGI:
    """A chat model behind text-generation-inference (TGI), or at an inference provider of the Hub.

    One ``complete`` makes one request and returns what it gave: a server that knows no ``n`` gives one answer, and
    the caller asks again, with another seed. ``n`` and ``seed`` are left out from when an endpoint refuses them;
    ``top_p`` is sent below 1 only, since TGI takes no other. Rate limits and passing troubles are dealt with as
    `Throttle` says.

    The Hub's providers, and its Inference Endpoints, are shown the Hub's token (``HF_TOKEN`` or that of
    ``hf auth login``), servers elsewhere never: theirs is ``TGI_API_KEY``, if they want one.

    Args:
        model: the model's id on the Hub; for a server of your own, which has but one, any name.
        base_url: the server, such as ``http://localhost:8080``; ``None`` for the Hub's providers.
        provider: which of the Hub's providers, such as ``together``; ``None`` leaves that to the Hub.
        timeout: seconds to wait for the whole answer to one request.
        max_retries: how often one request is tried again.
        concurrency: the most requests in flight; ``None`` leaves it to the caller.

    Raises:
        FatalBackendError: the address is malformed, the token is missing, or the arguments contradict each other.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        provider: str | None = None,
        *,
        timeout: float = 600.0,
        max_retries: int = 8,
        concurrency: int | None = None,
    ):
        from huggingface_hub import AsyncInferenceClient

        if base_url and provider:
            raise FatalBackendError(
                f"--base-url and --provider {provider} are two addresses", "give the one that shall be asked"
            )
        if not (base_url or model):
            raise FatalBackendError("the Hub's providers are asked without a model's name", "give --model NAME")
        self.model = model or "tgi"
        self._url = _checked(base_url) if base_url else _HUB
        self._provider = provider
        self._key_name = "HF_TOKEN" if _is_of_the_hub(self._url) else "TGI_API_KEY"
        self._key = _key(self._key_name, needed=not base_url)
        self._timeout = timeout
        self._throttle = Throttle(concurrency, max_retries)
        self._left_out: set[str] = set()
        self._served: dict[str, Any] | None = None
        address = {"base_url": base_url, "provider": "hf-inference"} if base_url else {"provider": provider}
        # Where there is no key, one that is none: the client would look for the Hub's token and send that.
        self._client = AsyncInferenceClient(**address, token=self._key or "none", timeout=timeout)

    def describe(self) -> dict[str, Any]:
        """What a manifest may record of this endpoint: nothing in it is secret."""
        return {
            "backend": "tgi",
            "endpoint": public_url(self._url),
            "provider": self._provider,
            "served": self._served or None,
            "parameters_left_out": sorted(self._left_out),
        }

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """Ask for ``n`` answers in one request; most servers give one."""
        while True:
            payload = self._payload(n, sampling)
            body = await self._throttle.ask(lambda payload=payload: self._attempt(messages, payload))
            if body is not None:
                break
        if self._served is None:
            self._served = {}  # nobody else is to ask
            self._served = await self._look()
        completion = completion_of(body, payload.get("seed"), self.model)
        candidates = (
            replace(candidate, finish_reason=_FINISH_REASONS.get(candidate.finish_reason, candidate.finish_reason))
            for candidate in completion.candidates
        )
        return replace(completion, candidates=tuple(candidates))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _payload(self, n: int, sampling: Sampling) -> dict[str, Any]:
        payload = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "seed": sampling.seed}
        if sampling.top_p < 1:
            payload["top_p"] = sampling.top_p
        if n > 1:
            payload["n"] = n
        return {name: value for name, value in payload.items() if name not in self._left_out}

    async def _attempt(self, messages: list[Message], payload: dict[str, Any]) -> Any:
        """The request once; ``None`` where the endpoint does not take a parameter that the next payload lacks."""
        import anyio
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

        where = public_url(self._url)
        try:
            # The client's own limit is for each read: a server that sends a byte now and then would never meet it.
            with anyio.fail_after(self._timeout):
                body = await self._client.chat_completion(messages, model=self.model, **payload)
        except (TimeoutError, InferenceTimeoutError):
            problem = f"{where} did not answer in time ({self._timeout:g} s)"
            raise Setback(BackendError(problem, "raise --timeout or lower --concurrency")) from None
        except HfHubHTTPError as error:
            return self._refused(error.response, payload)
        except OfflineModeIsEnabled:
            raise FatalBackendError(
                "HF_HUB_OFFLINE is set, so that nothing is asked of any server",
                "unset it, or ask a server of your own with --backend openai, whose interface TGI has as well",
            ) from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            problem = f"cannot connect to {where} ({self._said(str(error))})"
            fatal = FatalBackendError(problem, "start the server, or check --base-url and the network")
            raise Setback(fatal) from None
        except httpx2.HTTPError as error:
            problem = f"the connection to {where} broke ({self._said(str(error) or type(error).__name__)})"
            raise Setback(BackendError(problem, "start again to ask this question once more")) from None
        except json.JSONDecodeError as error:
            raise self._unreadable(error.doc) from None
        except UnicodeDecodeError as error:
            raise self._unreadable(error.object.decode("utf-8", "replace")) from None
        except ValueError as error:
            if str(error).startswith("Invalid"):  # the reply; anything else the client says before it asks
                raise self._unreadable(str(error)) from None
            problem = f"{where} cannot be asked ({self._said(str(error))})"
            raise FatalBackendError(problem, "mend what the message names") from None
        except (AttributeError, TypeError) as error:  # an error whose JSON has another form than the Hub's
            raise self._unreadable(str(error)) from None
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not all(map(_is_message, choices)):
            said = self._said(json.dumps(body))
            raise BackendError(f"{where} sent a reply without choices ({said})", "look into its log, then start again")
        return body

    def _refused(self, response: Any, payload: dict[str, Any]) -> None:
        """Learn from a refusal, where the next payload can do without what was refused.

        Raises:
            Setback: it may pass.
            ExcotError: it will not.
        """
        import openai

        # The errors of these endpoints have the form of OpenAI's, or a plain text in its place.
        error = openai.APIStatusError("", response=response, body=_body(self._without_key(response.text)))
        name = refused_parameter(error)
        if name in payload and name in ("n", "seed"):
            self._left_out.add(name)
            return
        explained = self._explain(error)
        status = response.status_code
        if (status in _MAY_PASS or status >= 500) and not isinstance(explained, FatalBackendError):
            raise Setback(explained, status, retry_after(error)) from None
        raise explained from None

    def _explain(self, error: APIStatusError) -> BackendError | FatalBackendError:
        where, status = public_url(self._url), error.status_code
        said = f"(HTTP {status}: {server_message(error.body, self._url)})"
        if status in (401, 403):
            remedy = f"set {self._key_name} to a key that may use {self.model!r}"
            return FatalBackendError(f"{where} refused the key {said}", remedy)
        text = json.dumps(error.body)
        if status in (400, 422) and _TOO_LONG.search(text):
            given = _GIVEN.search(text)
            return UnanswerableError(
                "too_long",
                f"the prompt is too long for {self.model!r} {said}",
                "shorten it or lower --max-tokens",
                int(given[1]) if given else None,
            )
        return explain(error, self._url, self.model)

    def _unreadable(self, text: str) -> Setback | FatalBackendError:
        where, said = public_url(self._url), self._said(text)
        if text.lstrip().startswith("<"):
            return FatalBackendError(f"{where} sent a web page, not a completion ({said})", "check --base-url")
        return Setback(BackendError(f"{where} sent a reply that is none ({said!r})", "look into its log"))

    async def _look(self) -> dict[str, Any]:
        """Which model a server of your own says that it serves; TGI does, others need not."""
        import anyio

        if self._url == _HUB:
            return {}
        try:
            with anyio.fail_after(min(self._timeout, 10.0)):
                info = await self._client.get_endpoint_info(model=self._url.rstrip("/").removesuffix("/v1"))
            return {name: info[name] for name in ("model_id", "model_sha", "version") if name in info}
        except Exception:  # whatever it answers there, it has answered a question
            return {}

    def _said(self, text: str) -> str:
        return server_message(self._without_key(text), self._url)

    def _without_key(self, text: str) -> str:
        # That of a login is in no variable of the environment, where `redact` looks for secrets.
        return text.replace(self._key, "[redacted]") if self._key else text


def _is_message(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("message"), dict)


def _body(text: str) -> Any:
    try:
        body = json.loads(text)
    except ValueError:
        return text
    return body.get("error", body) if isinstance(body, dict) else body


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        well_formed = False
    if not well_formed:
        shown = url.rsplit("@")[-1]
        raise FatalBackendError(f"the address {shown!r} is not a web address", "write it as http://HOST:PORT")
    return url


def _is_of_the_hub(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and any(f".{host}".endswith(f".{own}") for own in _OF_THE_HUB)


def _key(name: str, needed: bool) -> str | None:
    from huggingface_hub import get_token

    key = get_token() if name == "HF_TOKEN" else os.environ.get(name, "").strip()
    if needed and not key:
        raise FatalBackendError("there is no token for the Hub", "export HF_TOKEN=..., or: hf auth login")
    if key and not (key.isascii() and key.isprintable()):
        raise FatalBackendError(f"{name} holds characters that no key has", "set it again, as plain text on one line")
    return key or None
