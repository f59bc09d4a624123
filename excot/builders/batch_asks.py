"""Which requests a question takes in a batch, and its answers from the files of results, joined in their order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..journal import Journal
from ..llm.base import BackendError, Candidate, Completion, FatalBackendError, Sampling, UnanswerableError
from ..llm.batch import Learnt, OpenAIBatch
from ..llm.batch_lines import Result, read_result
from ..llm.batch_service import MayPass
from ..progress import Progress
from .batch_notes import Ask, Chunk, custom_id
from .ledger import Ledger

log = logging.getLogger("excot")

TRIES = 3
"""How often a request is made before its question has failed for this start."""

Errors = dict[str, BackendError | FatalBackendError]  # by custom id


@dataclass
class Joined:
    """What the results of a chunk leave to be done: requests by question, and why no more can be made, if so."""

    again: dict[str, list[Ask]] = field(default_factory=dict)
    fatal: FatalBackendError | None = None


class _Request(NamedTuple):
    """One request: what it is known by, and how it is made."""

    name: str
    id: str
    n: int
    tries: int
    sampling: Sampling


class Asks:
    """The requests of the questions that a ledger waits for.

    A question takes one request, or several where a model gives fewer answers at a time than are wanted. Its answers
    go to the ledger in the order of their requests, as if they had been made one after the other; one that comes
    before its turn is spared until then.

    Args:
        backend: makes the requests and understands the results.
        ledger: knows what is due, and takes the answers.
        spares: a journal for answers that wait for their turn.
        progress: is told of every question that is finished.
    """

    def __init__(self, backend: OpenAIBatch, ledger: Ledger, spares: Journal, progress: Progress):
        self._backend = backend
        self._ledger = ledger
        self._spares = spares
        self._progress = progress
        self._questions = {question["id"]: question for question in ledger.questions}

    # -- requests

    def plan(self, id: str, pending: Iterable[Ask] = (), size: int = 0) -> list[Ask]:
        """The requests that a question takes.

        Args:
            id: the question's.
            pending: those that are planned already.
            size: how many answers one request gives, where that is known.
        """
        question, asks = self._questions[id], list(pending)
        missing = self._ledger.due(question)[0] - sum(n for _, n, _ in asks)
        size = 1 if self._backend.one_choice else size or missing
        while missing > 0:
            n = min(size, missing)
            asks.append([self._ledger.due(question, len(asks))[1].seed, n, 0])
            missing -= n
        return asks

    def lines(self, questions: dict[str, list[Ask]]) -> Iterator[bytes]:
        """The lines of a file with these requests, apart from those whose answers are spared."""
        for id, asks in questions.items():
            messages = self._ledger.prompt(self._questions[id]) if id in self._questions else []
            for request in self._requests(id, asks):
                if request.name not in self._spares:
                    yield self._backend.line(request.name, messages, request.n, request.sampling)

    def settings(self) -> dict[str, Any]:
        """The parameters of requests that are made now."""
        return self._backend.settings(self._ledger.due(self._ledger.questions[0])[1])

    def _requests(self, id: str, asks: list[Ask]) -> list[_Request]:
        """The requests of a question, if it is still one of the run's."""
        if id not in self._questions:
            return []
        messages, (_, due) = self._ledger.prompt(self._questions[id]), self._ledger.due(self._questions[id])
        requests = []
        for seed, n, tries in asks:
            sampling = replace(due, seed=seed)
            name = custom_id(id, messages, self._backend.model, sampling.to_dict(), n)
            requests.append(_Request(name, id, n, tries, sampling))
        return requests

    # -- answers

    def join(self, chunk: Chunk, files: list[Path], faults: dict[int, BackendError]) -> Joined:
        """Give the ledger the answers in a chunk's results, in whatever order they stand.

        Joining them twice does no harm: what the ledger has is passed over.

        Args:
            chunk: whose batch has ended.
            files: its results.
            faults: the lines of its file that the service found wanting, counted from 1.
        """
        waiting = {question["id"] for question in self._ledger.waiting()}
        pending = {id: self._rest(id, asks) for id, asks in chunk.questions.items() if id in waiting}
        expected = {request.name: request for requests in pending.values() for request in requests}
        errors, sizes, unknown = self._at_lines(chunk, faults), {}, 0
        for result in _results(files):
            request = expected.get(result.custom_id) if result else None
            if request is None:
                unknown += 1
                continue
            try:
                completion = self._backend.completion(result, _sent(chunk, request))
            except (BackendError, FatalBackendError) as error:
                errors.setdefault(request.name, error)
                continue
            del expected[request.name]
            if len(completion.candidates) < request.n:
                sizes[request.id] = min(sizes.get(request.id, request.n), len(completion.candidates))
            if pending[request.id]:  # else the question has been finished without it
                self._take(request, pending[request.id], completion)
        if unknown:
            log.warning("batch %s: %d lines of its results answer no request", chunk.batch, unknown)
        return self._left(chunk, pending, errors, sizes)

    def lose(self, chunk: Chunk, error: BackendError) -> None:
        """Give up a chunk: its questions have failed."""
        for question in self._ledger.waiting():
            if question["id"] in chunk.questions:
                self._fail(question["id"], error)

    def _rest(self, id: str, asks: list[Ask]) -> list[_Request]:
        """The requests whose answers the ledger does not have; it has them in order."""
        due = self._ledger.due(self._questions[id])[1]
        return self._requests(id, next((asks[k:] for k, ask in enumerate(asks) if ask[0] == due.seed), []))

    def _at_lines(self, chunk: Chunk, faults: dict[int, BackendError]) -> Errors:
        if not faults:
            return {}
        requests = (request for id, asks in chunk.questions.items() for request in self._requests(id, asks))
        names = [request.name for request in requests if request.name not in self._spares]
        return {names[line - 1]: error for line, error in faults.items() if 0 < line <= len(names)}

    def _take(self, request: _Request, pending: list[_Request], completion: Completion) -> None:
        """Keep an answer and those that waited for it, or spare it until its turn."""
        if request is not pending[0]:
            self._spares.add(request.name, "", asdict(completion))
            return
        while True:
            pending.pop(0)
            if self._ledger.keep(self._questions[request.id], completion):
                pending.clear()
                self._progress.advance(answered=1)
            if not pending or pending[0].name not in self._spares:
                return
            completion = _completion(self._spares.read(pending[0].name))

    def _left(self, chunk: Chunk, pending: dict[str, list[_Request]], errors: Errors, sizes: dict[str, int]) -> Joined:
        """What is to be done about the questions that the results have not finished."""
        joined = Joined()
        waiting = {question["id"] for question in self._ledger.waiting()}
        for id in (id for id in pending if id in waiting):
            try:
                again = [self._again(request, errors, chunk) for request in pending[id]]
            except UnanswerableError as error:
                self._ledger.refuse(self._questions[id], error)
                self._progress.advance(**{error.kind: 1})
            except BackendError as error:
                self._fail(id, error)
            except FatalBackendError as error:
                joined.fatal = joined.fatal or error
            else:
                joined.again[id] = self.plan(id, again, sizes.get(id, 0))
        return joined

    def _again(self, request: _Request, errors: Errors, chunk: Chunk) -> Ask:
        """How a request is made again, or the error where it is not."""
        name, _, n, tries, sampling = request
        if name in self._spares:
            return [sampling.seed, n, tries]
        nothing = MayPass(f"batch {chunk.batch} ({chunk.status}) has no answer to this request", "start again")
        error = errors.get(name, nothing)
        if isinstance(error, Learnt):
            return [sampling.seed, 1 if self._backend.one_choice else n, tries]
        if not isinstance(error, MayPass) or tries + 1 >= TRIES:
            raise error
        return [sampling.seed, n, tries + 1]

    def _fail(self, id: str, error: BackendError) -> None:
        self._ledger.fail(self._questions[id], error)
        self._progress.advance(failed=1)


def _results(files: list[Path]) -> Iterator[Result | None]:
    for path in files:
        with open(path, "rb") as lines:
            for line in lines:
                if line.strip():
                    yield read_result(line)


def _sent(chunk: Chunk, request: _Request) -> dict[str, Any]:
    """The parameters of one request of a chunk, as it was made then."""
    own = {"n": request.n if chunk.sent.get("n", 1) > 1 else 1, "seed": request.sampling.seed}
    return {**chunk.sent, **{name: value for name, value in own.items() if name in chunk.sent}}


def _completion(record: dict[str, Any]) -> Completion:
    return Completion(**{**record, "candidates": tuple(Candidate(**candidate) for candidate in record["candidates"])})
