"""A chat model behind a batch API: requests as lines of a file, answers as lines of another one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from .base import BackendError, Completion, FatalBackendError, Message, Sampling, UnanswerableError
from .batch_lines import Result, request_line, status_error
from .batch_service import Batch, BatchService, MayPass, QueueFull, may_pass, queue_is_full
from .endpoint import explain, server_message
from .openai import completion_of

MOST_REQUESTS = {"openai": 50_000, "azure": 100_000}
"""Of one file."""

MOST_BYTES = 190_000_000
"""Of one file. The services take 200 MB; what is learnt between planning a file and writing it may make it grow."""


class Learnt(MayPass):
    """The request held a parameter that the service does not take; the next one will not."""


class OpenAIBatch(BatchService):
    """A chat model behind the batch API of OpenAI, Azure OpenAI, or another endpoint that speaks it.

    Takes what `OpenAI` takes. Its ``complete`` asks the endpoint directly, outside of any batch.

    Attributes:
        most_requests: how many one file may hold.
        most_bytes: how large it may be.
    """

    def __init__(self, model: str, base_url: str | None = None, *, azure: bool = False, **others: Any):
        super().__init__(model, base_url, azure=azure, **others)
        self.most_requests = MOST_REQUESTS["azure" if azure else "openai"]
        self.most_bytes = MOST_BYTES
        if azure:
            self.path = "/chat/completions"
        if (urlsplit(self._url).hostname or "").endswith("api.openai.com"):
            self._length_name = "max_completion_tokens"  # all their models take it, and to learn that may cost a day

    @property
    def one_choice(self) -> bool:
        """Whether the model gives one answer a request, whatever ``n`` says."""
        return self._one_choice

    @property
    def learnt(self) -> dict[str, Any]:
        """What the service takes and does not take, to be set again by whoever goes on later."""
        left_out = sorted(self._left_out)
        return {"length_name": self._length_name, "one_choice": self._one_choice, "left_out": left_out}

    @learnt.setter
    def learnt(self, known: dict[str, Any]) -> None:
        self._length_name, self._one_choice = known["length_name"], known["one_choice"]
        self._left_out = set(known["left_out"])

    def describe(self) -> dict[str, Any]:
        """What a manifest may record of this endpoint: nothing in it is secret."""
        return {**super().describe(), "batch": True}

    def line(self, custom_id: str, messages: list[Message], n: int, sampling: Sampling) -> bytes:
        """One request as a line of a file to upload."""
        return request_line(custom_id, self.path, self._payload(messages, n, sampling))

    def settings(self, sampling: Sampling) -> dict[str, Any]:
        """The parameters that requests are made with now; ``n`` is 1 where no more is asked for at once."""
        payload = self._payload([], 2, sampling)
        return {name: value for name, value in payload.items() if name not in ("model", "messages")}

    def completion(self, result: Result, sent: dict[str, Any]) -> Completion:
        """What a result says.

        Args:
            result: a line of a batch's results.
            sent: the parameters of its request.

        Raises:
            UnanswerableError: the question will never be answered as it is asked.
            Learnt: it will be asked otherwise.
            MayPass: it may be answered when it is asked again: a rate limit, a server's error, a batch out of time.
            FatalBackendError: no request will be answered (a key, credit, the model's name).
            BackendError: it was refused.
        """
        error = result.error
        if error is None:
            choices = (result.body or {}).get("choices")
            if isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices):
                with suppress(AttributeError, TypeError):  # of replies that are built in no way that anybody knows
                    return _sound(completion_of(result.body, sent.get("seed"), self.model))
            said = server_message(result.body, self._url)
            raise MayPass(f"{self.endpoint} sent a reply without answers ({said})", "start again to ask once more")
        if self._adapt(error, sent):
            raise Learnt(f"{self.endpoint} does not take a parameter ({server_message(error.body, self._url)})")
        if error.status_code == 0:
            raise self._never_made(error.code, error.body)
        explained = explain(error, self._url, self.model, self.azure)
        if may_pass(error.status_code) and not isinstance(explained, FatalBackendError):
            raise MayPass(explained.problem, explained.remedy)
        raise explained

    def refusal(self, batch: Batch) -> tuple[BackendError | FatalBackendError | None, dict[int, BackendError]]:
        """Why a batch was not taken: as a whole, where that is so, and by the lines of its file, counted from 1."""
        whole: FatalBackendError | None = None
        lines: dict[int, BackendError] = {}
        for fault in batch.faults:
            said = f"({fault['code']}: {server_message(fault['message'] or '', self._url)})"
            if queue_is_full(fault["code"], fault["message"]):
                return QueueFull(f"the queue of {self.endpoint} is full {said}", "start again later"), {}
            explained = explain(status_error(fault, 400), self._url, self.model, self.azure)
            if isinstance(fault["line"], int) and not isinstance(explained, FatalBackendError):
                lines[fault["line"]] = explained
            elif whole is None:
                remedy = "mend what the message names, then start again"
                whole = FatalBackendError(f"{self.endpoint} did not take the batch {batch.id} {said}", remedy)
        return whole, lines

    def _never_made(self, code: str | None, body: Any) -> BackendError:
        """Why a request of a batch was not made."""
        said = f"({code}: {server_message(body, self._url)})"
        if code == "batch_cancelled":  # by somebody who may not want it made after all
            return BackendError(f"the batch was cancelled at {self.endpoint} {said}", "start again to ask once more")
        refused = explain(status_error(body, 400), self._url, self.model, self.azure)
        if isinstance(refused, UnanswerableError):
            return refused
        return MayPass(f"{self.endpoint} did not come to this request {said}", "start again to ask once more")


def _sound(completion: Completion) -> Completion:
    """The completion, without the lone surrogates that JSON can hold and UTF-8 cannot.

    Raises:
        TypeError: a part of it is not what it should be.
    """
    candidates = tuple(
        replace(candidate, text=candidate.text and candidate.text.encode("utf-8", "replace").decode("utf-8"))
        for candidate in completion.candidates
    )
    words = [
        completion.model,
        *(text for candidate in candidates for text in (candidate.text, candidate.finish_reason)),
    ]
    tokens = (completion.prompt_tokens, completion.billed_completion_tokens)
    if not all(isinstance(word, str | None) for word in words):
        raise TypeError("text is no text")
    if not all(isinstance(count, int | None) for count in tokens):
        raise TypeError("a number is no number")
    return replace(completion, candidates=candidates)
