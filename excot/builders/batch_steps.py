"""The way of a chunk of requests: uploaded, submitted, running, collected; each step is noted before it is made.

Whatever ends the process between a request to the service and the note of its reply: the next start finds
``uploading`` or ``submitting`` in the notes, looks whether the service did it, and takes over what it finds.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ..llm.base import BackendError, FatalBackendError
from ..llm.batch import OpenAIBatch
from ..llm.batch_service import ENDED, Batch, QueueFull
from .batch_asks import Asks
from .batch_notes import Ask, Chunk, Notes, Step, sync
from .ledger import Ledger

log = logging.getLogger("excot")

SETTLING = 5.0  # s; a service may list what it has just made a little late
SMALLEST = 50  # questions; a chunk that the queue has no room for is not divided below: the queue is full of others'


class Steps:
    """Takes chunks along their way.

    Args:
        backend: the service.
        notes: where every step is noted.
        asks: what is asked, and where the answers go.
        ledger: what is finished.
        folder: for files on their way to the service and from it.
        journal: the file in which the ledger keeps the answers.
        new: whether questions may be handed in that never were.
    """

    def __init__(
        self,
        backend: OpenAIBatch,
        notes: Notes,
        asks: Asks,
        ledger: Ledger,
        folder: Path,
        journal: Path,
        new: bool,
    ):
        self._backend = backend
        self._notes = notes
        self._asks = asks
        self._ledger = ledger
        self._folder = folder
        self._journal = journal
        self._new = new

    def plan(self, questions: dict[str, list[Ask]], handed_in: bool = False) -> None:
        """Note chunks for these requests, each as large as the service takes a file; a question is never divided."""
        chunk: dict[str, list[Ask]] = {}
        requests = size = 0
        for id, asks in questions.items():
            lengths = [len(line) for line in self._asks.lines({id: asks})]
            full = requests + len(lengths) > self._backend.most_requests
            if chunk and (full or size + sum(lengths) > self._backend.most_bytes):
                self._notes.add(chunk, handed_in)
                chunk, requests, size = {}, 0, 0
            chunk[id] = asks
            requests, size = requests + len(lengths), size + sum(lengths)
        if chunk:
            self._notes.add(chunk, handed_in)

    async def advance(self, chunk: Chunk) -> None:
        """Take a chunk as far as it goes now.

        Raises:
            MayPass: the service could not be asked, or nobody knows what it did; the next call finds out.
            ExcotError: the service does not take this chunk, and would not take another.
        """
        step = None
        while step != chunk.step:
            step = chunk.step
            await self._STEPS[step](self, chunk)

    def may_go_on(self, chunk: Chunk) -> bool:
        """Whether the next step is ours to make now."""
        if chunk.step in ("planned", "uploaded"):
            return not chunk.held and (self._new or chunk.handed_in)
        return chunk.step in ("uploading", "submitting")

    async def _upload(self, chunk: Chunk) -> None:
        if not self.may_go_on(chunk):
            return
        path = self._folder / chunk.name
        with open(path, "wb") as file:
            file.writelines(self._asks.lines(chunk.questions))
        if not path.stat().st_size:  # all its questions have gone from the run
            self._close(chunk)
            return
        chunk.sent = self._asks.settings()
        self._note(chunk, "uploading")
        chunk.file = await self._backend.upload(path, chunk.name)
        self._uploaded(chunk)

    async def _look_for_upload(self, chunk: Chunk) -> None:
        await asyncio.sleep(SETTLING)
        chunk.file = await self._backend.find_upload(chunk.name)
        if chunk.file:
            self._uploaded(chunk)
        else:
            self._note(chunk, "planned")

    async def _submit(self, chunk: Chunk) -> None:
        if not self.may_go_on(chunk) or not await self._backend.is_ready(chunk.file):
            return
        chunk.alone = not any(other.step in ("submitting", "running") for other in self._notes.chunks)
        self._note(chunk, "submitting")
        try:
            batch = await self._backend.submit(chunk.file, self._notes.tags(chunk))
        except QueueFull:
            self._hold(chunk)
        else:
            self._submitted(chunk, batch)

    async def _look_for_batch(self, chunk: Chunk) -> None:
        await asyncio.sleep(SETTLING)
        batch = await self._backend.find_batch(chunk.file, self._notes.tags(chunk), chunk.refused)
        if batch:
            self._submitted(chunk, batch)
        else:
            self._note(chunk, "uploaded")

    async def _collect(self, chunk: Chunk) -> None:
        batch = await self._backend.batch(chunk.batch)
        if (chunk.status, chunk.done) != (batch.status, batch.done):
            chunk.status, chunk.done = batch.status, batch.done
            self._notes.save()
        if batch.status not in ENDED:
            return
        whole, faults = self._backend.refusal(batch) if batch.status == "failed" else (None, {})
        if isinstance(whole, QueueFull) and not batch.results:
            chunk.refused.append(batch.id)
            self._hold(chunk)
            return
        self._notes.own(*batch.results)
        self._notes.save()
        paths = [await self._fetch(file) for file in batch.results]
        joined = self._asks.join(chunk, [path for path in paths if path], faults)
        self._notes.learnt = self._backend.learnt
        if None in paths:  # made, paid for, and gone: to make it again is for the user to decide
            gone = f"the results of batch {batch.id} are no longer at {self._backend.endpoint}"
            self._asks.lose(chunk, BackendError(gone, "start again to ask once more"))
        elif whole is None or isinstance(whole, QueueFull):
            self.plan(joined.again, handed_in=True)
        sync(self._journal)  # the answers first, then that they have been collected
        self._close(chunk)
        for path in paths:
            if path:
                path.unlink()
        for error in (whole, joined.fatal):
            if isinstance(error, FatalBackendError):
                raise error

    async def _fetch(self, file: str) -> Path | None:
        """A file of results on our disk; one that an earlier start has brought there is whole."""
        path = self._folder / f"{''.join(c for c in file if c.isalnum() or c in '-_')}.jsonl"
        there = path.exists() or await self._backend.download(file, path)
        return path if there else None

    def _uploaded(self, chunk: Chunk) -> None:
        self._notes.own(chunk.file)
        self._note(chunk, "uploaded")
        (self._folder / chunk.name).unlink(missing_ok=True)

    def _submitted(self, chunk: Chunk, batch: Batch) -> None:
        chunk.batch, chunk.status, chunk.handed_in = batch.id, batch.status, True
        self._note(chunk, "running")

    def _hold(self, chunk: Chunk) -> None:
        """Wait for room in the queue; what did not fit while nothing else of ours was there is divided."""
        chunk.handed_in = chunk.held = True
        chunk.batch = None
        ids = list(chunk.questions)
        if chunk.alone and len(ids) >= 2 * SMALLEST:
            for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                self._notes.add({id: chunk.questions[id] for id in half}, handed_in=True).held = True
            self._close(chunk)
        else:
            self._note(chunk, "uploaded")

    def _close(self, chunk: Chunk) -> None:
        chunk.questions = {}
        self._notes.failed.update(self._ledger.failed)
        self._note(chunk, "collected")

    def _note(self, chunk: Chunk, step: Step) -> None:
        chunk.step = step
        self._notes.save()

    async def _rest(self, chunk: Chunk) -> None:
        pass

    _STEPS = {
        "planned": _upload,
        "uploading": _look_for_upload,
        "uploaded": _submit,
        "submitting": _look_for_batch,
        "running": _collect,
        "collected": _rest,
    }
