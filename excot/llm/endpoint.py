"""What goes wrong between us and a chat endpoint, said in one line that holds no secret."""

from __future__ import annotations

import email.utils
import json
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from .base import BackendError, FatalBackendError, UnanswerableError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAIError

MESSAGE_LENGTH = 200
"""How many characters of a server's message an error shows."""

LONGEST_WAIT = 3600
"""A ``Retry-After`` longer than this many seconds ends the run rather than being waited out."""

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_TEXT = re.compile(r"\bsk-[\w*.\-]{4,}|(?<=\bbearer )[^\s,'\"]+|(?<=\bbasic )[\w+/=]{8,}", re.IGNORECASE)
_OWN_KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")
_PARAMETERS = ("max_tokens", "max_completion_tokens", "n", "seed", "temperature", "top_p")

_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|(prompt|input|request) is too (long|large)|too many (input )?tokens"
    r"|max_tokens must be at least 1, got -",  # what vLLM once said of a prompt that leaves no room for an answer
    re.IGNORECASE,
)
_OVER_LIMIT = re.compile(r"request too large for .{0,200}tokens must be reduced", re.IGNORECASE | re.DOTALL)
_COUNTED = (  # how OpenAI, vLLM, SGLang and llama.cpp say how many tokens a prompt has
    r"(\d+) in (?:the|your) (?:messages|prompt|input)",
    r"resulted in (\d+) tokens",
    r"(?<!at least )\b(\d+) (?:input|prompt) tokens",  # vLLM stops counting where a prompt is too long
    r"(\d+) tokens from the input",
    r"(?:request|prompt|input) \((\d+) tokens\)",
)
_NOT_TAKEN = re.compile(
    r"unsupported|not (support|permitted|allowed)|unknown|unrecogni[sz]ed|unexpected"
    r"|only one|at most 1\b",
    re.IGNORECASE,
)


def public_url(url: str) -> str:
    """``url`` without user, password, query and fragment: what may be shown and stored."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def redact(text: str, url: str = "") -> str:
    """Replace every secret in ``text`` by ``[redacted]``.

    Secrets are the values of environment variables named like a key, token, secret or password, whatever looks like
    ``sk-...`` or follows ``Bearer`` or ``Basic``, and the user part and query values of ``url``.
    """
    secrets = {
        value.strip()
        for name, value in os.environ.items()
        if name in _OWN_KEYS or (_SECRET_NAME.search(name) and len(value.strip()) >= 8)
    }
    parts = urlsplit(url)
    secrets |= {parts.username or "", parts.password or "", *(value for _, value in parse_qsl(parts.query))}
    for secret in sorted(secrets - {"", "EMPTY"}, key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    return _SECRET_TEXT.sub("[redacted]", text)


def server_message(body: Any, url: str = "") -> str:
    """The readable part of an error body (parsed JSON or text), redacted, on one line, cut to 200 characters."""
    if isinstance(body, dict):
        body = body.get("error", body)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    text = body if isinstance(body, str) else json.dumps(body)
    text = " ".join(redact(text, url).split())  # redacted before it is cut, or half a key could stay
    return text if len(text) <= MESSAGE_LENGTH else text[:MESSAGE_LENGTH] + "..."


def retry_after(error: APIStatusError) -> float:
    """The seconds that the server asks us to wait (``Retry-After`` as seconds or as a date); 0 where it does not."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:  # OpenAI and Azure say it more exactly as well
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = float(headers.get("retry-after", ""))
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("retry-after", ""))
        seconds = email.utils.mktime_tz(date) - time.time() if date else 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def refused_parameter(error: APIStatusError) -> str | None:
    """The parameter of our request that the endpoint says it does not take, or ``None``.

    vLLM names ``max_completion_tokens`` when a prompt is too long; that is not a refusal.
    """
    text = f"{error.code} {json.dumps(error.body)}"
    if error.status_code not in (400, 422) or _TOO_LONG.search(text) or not _NOT_TAKEN.search(text):
        return None
    if error.param in _PARAMETERS:
        return error.param
    if re.search(r"only one completion", text, re.IGNORECASE):  # llama.cpp's server, of n > 1
        return "n"
    quoted = re.search(rf"""['"`]({"|".join(_PARAMETERS)})\\?['"`]""", text)
    return quoted[1] if quoted else None


def explain(error: OpenAIError, url: str, model: str, azure: bool = False) -> BackendError | FatalBackendError:
    """Translate an exception of the openai client into ours: fatal where every question would meet the same."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, url, model, azure)
    where = public_url(url)
    names, reason = _causes(error)
    reason = server_message(reason, url)
    # By name: the HTTP library below the client was httpx before it was httpx2.
    if names & {"ConnectError", "ConnectTimeout"}:
        return FatalBackendError(
            f"cannot connect to {where} ({reason})", "start the server, or check --base-url and the network"
        )
    if isinstance(error, openai.APITimeoutError):
        return BackendError(f"{where} did not answer in time ({reason})", "raise --timeout or lower --concurrency")
    return BackendError(f"the connection to {where} broke ({reason})", "start again to ask this question once more")


def _explain_status(error: APIStatusError, url: str, model: str, azure: bool) -> BackendError | FatalBackendError:
    where, status, code = public_url(url), error.status_code, error.code or ""
    said = f"(HTTP {status}: {server_message(error.body, url)})"
    text = f"{code} {json.dumps(error.body)}"
    if status in (401, 403):
        key = "AZURE_OPENAI_API_KEY" if azure else "OPENAI_API_KEY"
        return FatalBackendError(f"{where} refused the key {said}", f"set {key} to a key that may use {model!r}")
    if status == 402 or "insufficient_quota" in text:
        return FatalBackendError(f"{where} says the account has no credit left {said}", "add credit, then start again")
    if status in (404, 405) or code == "model_not_found":
        remedy = "check the model's name, and --base-url: it usually ends in /v1"
        if azure:
            remedy = "--model is the deployment's name; check it, AZURE_OPENAI_ENDPOINT and OPENAI_API_VERSION"
        return FatalBackendError(f"{where} has no model {model!r} or no such path {said}", remedy)
    # Of a request that alone is over the limit of tokens a minute, OpenAI says so with the status of rate limits.
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(text)) or _OVER_LIMIT.search(text):
        remedy = "shorten it or lower --max-tokens"
        return UnanswerableError(
            "too_long", f"the prompt is too long for {model!r} {said}", remedy, _counted_tokens(text)
        )
    if status in (400, 422):
        if re.search(r"content[_ ](filter|policy|management)", text, re.IGNORECASE):
            problem = f"the endpoint's content filter refused this question {said}"
            return UnanswerableError("content_filter", problem, "reword the question")
        parameter = refused_parameter(error) or (error.param if error.param in _PARAMETERS else None)
        if parameter:
            return FatalBackendError(f"{where} does not take our {parameter} {said}", "change that sampling setting")
        return BackendError(f"{where} refused the request {said}", "mend what the message names")
    if retry_after(error) > LONGEST_WAIT:
        return FatalBackendError(
            f"{where} asks for a pause of {retry_after(error):.0f} s {said}", "start again then; the run goes on"
        )
    if status == 429:
        return BackendError(f"{where} is over its rate limit {said}", "lower --concurrency")
    return BackendError(f"{where} failed {said}", "look into the server's log, then start again")


def _counted_tokens(text: str) -> int | None:
    """The tokens of a prompt that an endpoint found too long, where it says how many it counted."""
    found = (re.search(pattern, text, re.IGNORECASE) for pattern in _COUNTED)
    return next((int(match[1]) for match in found if match), None)


def _causes(error: BaseException) -> tuple[set[str], str]:
    """The class names along the chain of causes, and the last cause's text, which is the most concrete one."""
    names, text, seen = set(), "", error
    while seen is not None:
        names.add(type(seen).__name__)
        text = str(seen).strip() or type(seen).__name__
        seen = seen.__cause__ or seen.__context__
    return names, text
