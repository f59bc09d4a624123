"""The lines of a batch's files: requests on their way to the service, and what it says became of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import APIStatusError


@dataclass(frozen=True)
class Result:
    """What became of one request.

    Attributes:
        custom_id: of the request.
        body: the chat completion, or ``None`` where there is none.
        error: what was refused or went wrong, or ``None``; its ``status_code`` is 0 where the request was never made.
    """

    custom_id: str
    body: dict[str, Any] | None
    error: APIStatusError | None


def request_line(custom_id: str, path: str, payload: dict[str, Any]) -> bytes:
    """One request of a batch's input file."""
    line = {"custom_id": custom_id, "method": "POST", "url": path, "body": payload}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def read_result(line: bytes) -> Result | None:
    """One line of an output or error file; ``None`` where it is none, which leaves its request unanswered.

    A request that was made and refused has the refusal in its response; one that was never made (the batch expired or
    was cancelled) has no response, and says so in ``error``.
    """
    try:
        row = json.loads(line)
        name, response, error = row["custom_id"], row.get("response") or {}, row.get("error")
        status, body = int(response.get("status_code") or 0), response.get("body")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(name, str):
        return None
    if status == 200 and not error:
        return Result(name, body if isinstance(body, dict) else {}, None)
    refusal = body.get("error", body) if isinstance(body, dict) else body
    return Result(name, None, status_error(error or refusal, 0 if status == 200 else status))


def status_error(body: Any, status: int) -> APIStatusError:
    """A refusal that came in a file, in the form of one that came as a response."""
    import openai

    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return openai.APIStatusError("", response=response, body=body)
