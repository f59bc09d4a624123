"""The files and batches endpoints of OpenAI and Azure OpenAI: what is made there, found again, read and deleted."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import BackendError, FatalBackendError, UnanswerableError
from .endpoint import explain, public_url, retry_after, server_message
from .openai import OpenAI
from .throttle import Setback

ENDED = ("completed", "failed", "expired", "cancelled")
"""The states that a batch does not leave. All of them may come with answers."""

_IN_PREPARATION = ("pending", "running", "notRunning")  # of an uploaded file, at Azure
_NOT_DONE = (408, 409, 425, 429)  # and all from 500 on: what was asked for may be granted later
_QUEUE_FULL = re.compile(r"token_limit_exceeded|request_limit_exceeded|enqueued|queue is full", re.IGNORECASE)


class MayPass(BackendError):
    """It failed, or nobody knows whether it did; later it may be otherwise."""


class QueueFull(BackendError):
    """The service has as much of ours, or of others who share its queue, as it takes."""


@dataclass(frozen=True)
class Batch:
    """A batch as the service reports it.

    Attributes:
        id: its name at the service.
        status: ``validating``, ``in_progress``, ``finalizing``, ``cancelling``, or one of `ENDED`.
        file: the id of the uploaded file of requests.
        results: the ids of the files with what became of them; either may be missing, whatever the status.
        faults: why it was not taken: ``code``, ``message``, ``param``, and the ``line`` of the file where it is one's.
        tags: the metadata that it was made with.
        done: how many of its requests are answered or failed.
    """

    id: str
    status: str
    file: str
    results: tuple[str, ...]
    faults: tuple[dict[str, Any], ...]
    tags: dict[str, str]
    done: int


class BatchService(OpenAI):
    """Files and batches at an endpoint. Takes what `OpenAI` takes.

    What looks is retried as in `OpenAI`. What makes something (`upload`, `submit`) is tried once, since a connection
    that breaks does not tell whether it was made: it raises `MayPass`, and `find_upload` and `find_batch` tell.
    """

    path = "/v1/chat/completions"
    """Of the requests that a batch holds."""

    _reached = False  # whether this endpoint has ever answered

    @property
    def endpoint(self) -> str:
        """Its address, without secrets."""
        return public_url(self._url)

    async def upload(self, path: Path, name: str) -> str:
        """Upload a file of requests under a name of ours; its id.

        Raises:
            MayPass: it failed, or nobody knows whether it did.
        """
        files = self._client.files.with_raw_response
        with open(path, "rb") as file:
            named = (name, file, "application/jsonl")
            return self._id_of(await self._make(lambda: files.create(file=named, purpose="batch")))

    async def submit(self, file: str, tags: dict[str, str]) -> Batch:
        """Make a batch of an uploaded file.

        Args:
            file: the file's id.
            tags: the batch's metadata, by which `find_batch` knows it.

        Raises:
            MayPass: it failed, or nobody knows whether it did.
            QueueFull: the service takes no more for now.
        """
        batches, request = self._client.batches.with_raw_response, {"input_file_id": file, "metadata": tags}
        path: Any = self.path
        made = await self._make(lambda: batches.create(endpoint=path, completion_window="24h", **request))
        self._id_of(made)
        return _batch(made)

    async def find_upload(self, name: str) -> str | None:
        """The id of the file that was uploaded under this name, if there is one."""
        files = self._client.files.with_raw_response
        async for row in self._pages(files.list, purpose="batch"):
            if row.get("filename") == name and row.get("status") not in ("error", "deleted"):
                return row["id"]
        return None

    async def find_batch(self, file: str, tags: dict[str, str], known: list[str]) -> Batch | None:
        """The batch that was made of this file or with these tags, apart from those ``known``."""
        async for row in self._pages(self._client.batches.with_raw_response.list, limit=100):
            batch = _batch(row)
            if batch.id not in known and (batch.file == file or tags.items() <= batch.tags.items()):
                return batch
        return None

    async def is_ready(self, file: str) -> bool:
        """Whether an uploaded file can be made a batch; Azure looks through it first.

        Raises:
            FatalBackendError: the service found it wanting.
        """
        try:
            row = await self._look(self._client.files.with_raw_response.retrieve, file)
        except _Missing:  # an endpoint that tells nothing of files; it will say so when the file is used
            return True
        if row.get("status") == "error":
            said = server_message(row.get("status_details") or "it gives no reason", self._url)
            raise FatalBackendError(f"{self.endpoint} did not take the file {file} ({said})", "start again")
        return row.get("status") not in _IN_PREPARATION

    async def batch(self, id: str) -> Batch:
        """How far a batch is.

        Raises:
            FatalBackendError: the service does not know it.
        """
        try:
            return _batch(await self._look(self._client.batches.with_raw_response.retrieve, id))
        except _Missing:
            raise FatalBackendError(
                f"{self.endpoint} knows no batch {id}",
                "use the account that it was handed in with, or --overwrite to ask everything anew",
            ) from None

    async def download(self, file: str, path: Path) -> bool:
        """Write a file of results to ``path``, a piece at a time; false where the service does not have it."""
        try:
            await self._throttle.ask(lambda: self._attempt_download(file, path))
        except _Missing:
            return False
        return True

    async def delete(self, file: str) -> None:
        """Delete a file, if it is there."""
        try:
            await self._look(self._client.files.with_raw_response.delete, file)
        except _Missing:
            pass

    async def cancel(self, id: str) -> None:
        """Ask the service to stop a batch, if it is there; what is answered by then is paid for."""
        try:
            await self._look(self._client.batches.with_raw_response.cancel, id)
        except _Missing:
            pass

    async def _attempt_download(self, file: str, path: Path) -> None:
        scratch = path.with_name(path.name + ".new")
        try:
            with open(scratch, "wb") as out:
                async with self._client.files.with_streaming_response.content(file) as response:
                    async for piece in response.iter_bytes(1 << 16):
                        out.write(piece)
        except _network_errors() as error:
            raise self._setback(error) from None
        os.replace(scratch, path)

    async def _look(self, call: Callable[..., Awaitable[Any]], *what: Any, **how: Any) -> dict[str, Any]:
        """The object that a request gives which can be made as often as one likes."""
        import anyio

        async def attempt() -> dict[str, Any]:
            try:
                with anyio.fail_after(self._timeout):
                    return self._object((await call(*what, **how)).text)
            except MayPass as error:
                raise Setback(error) from None
            except TimeoutError:
                raise Setback(MayPass(f"{self.endpoint} did not answer in time", "raise --timeout")) from None
            except _network_errors() as error:
                raise self._setback(error) from None

        return await self._throttle.ask(attempt)

    async def _make(self, call: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        """The object that a request gives which makes something, and which is therefore made once."""

        async def attempt() -> dict[str, Any]:
            try:
                return self._object((await call()).text)
            except _network_errors() as error:
                setback = self._setback(error)
            if setback.status == 429:
                raise setback  # nothing was made: it waits its turn
            raise setback.error

        return await self._throttle.ask(attempt)

    async def _pages(self, call: Callable[..., Awaitable[Any]], **how: Any) -> AsyncIterator[dict[str, Any]]:
        """The rows of a list, page by page."""
        more = True
        while more:
            page = await self._look(call, **how)
            rows = [row for row in page.get("data") or () if isinstance(row, dict) and row.get("id")]
            for row in rows:
                yield row
            more = bool(page.get("has_more") and rows) and rows[-1]["id"] != how.get("after")
            how = {**how, "after": rows[-1]["id"]} if more else how

    def _setback(self, error: Exception) -> Setback:
        """What may pass; what may not is raised at once."""
        import openai

        explained = explain(error, self._url, self.model, self.azure)  # type: ignore[arg-type]
        if not isinstance(error, openai.APIStatusError):
            if self._reached or not isinstance(explained, FatalBackendError):  # an address that answered is right
                explained = MayPass(explained.problem, "start again: what was handed in goes on")
            return Setback(explained)
        self._reached = True
        if error.status_code == 404:
            raise _Missing(explained.problem, explained.remedy)
        if queue_is_full(error.code, error.body):
            raise QueueFull(explained.problem, "start again later")
        if isinstance(explained, UnanswerableError):  # which is meant of a question, and this is a file
            raise FatalBackendError(explained.problem, "look into what the service takes")
        if isinstance(explained, FatalBackendError) or not may_pass(error.status_code):
            raise FatalBackendError(explained.problem, explained.remedy)
        return Setback(MayPass(explained.problem, explained.remedy), error.status_code, retry_after(error))

    def _object(self, text: str) -> dict[str, Any]:
        said = server_message(text, self._url)
        if text.lstrip().startswith("<"):
            raise FatalBackendError(
                f"{self.endpoint} sent a web page ({said})", "check --base-url, it usually ends in /v1"
            )
        try:
            row = json.loads(text)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise MayPass(f"{self.endpoint} sent no JSON object ({said!r})", "look into its log")
        self._reached = True
        return row

    def _id_of(self, row: dict[str, Any]) -> str:
        if not isinstance(row.get("id"), str) or not row["id"]:
            said = server_message(row, self._url)
            raise MayPass(f"{self.endpoint} did not say what it made ({said})", "look into its log")
        return row["id"]


class _Missing(FatalBackendError):
    """The service has no such thing."""


def may_pass(status: int) -> bool:
    """Whether what failed with this HTTP status may succeed later."""
    return status in _NOT_DONE or status >= 500


def queue_is_full(code: Any, said: Any) -> bool:
    """Whether a refusal says that the service takes no further requests for now."""
    return bool(_QUEUE_FULL.search(f"{code} {said}"))


def _batch(row: dict[str, Any]) -> Batch:
    faults = (row.get("errors") or {}).get("data") or ()
    counts = row.get("request_counts") or {}
    return Batch(
        id=row.get("id") or "",
        status=row.get("status") or "",
        file=row.get("input_file_id") or "",
        results=tuple(row[name] for name in ("output_file_id", "error_file_id") if row.get(name)),  # "" is none
        faults=tuple({name: fault.get(name) for name in ("code", "message", "param", "line")} for fault in faults),
        tags=row.get("metadata") or {},
        done=(counts.get("completed") or 0) + (counts.get("failed") or 0),
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """The errors of the client, and of the HTTP library below it, which show while a body is read."""
    import openai

    library = sys.modules[type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0]]
    return openai.OpenAIError, library.HTTPError
