"""Ask a backend about every question that is not finished, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..llm.base import Backend, BackendError, FatalBackendError, UnanswerableError
from ..progress import Progress
from .ledger import Ledger, Question

T = TypeVar("T")

_GRACE = 120.0  # s that answers in flight get once no further question is asked


async def ask_all(backend: Backend, ledger: Ledger, concurrency: int) -> None:
    """Ask until every question is in the ledger, or its budget is used up; the backend is closed then.

    Args:
        backend: whom to ask.
        ledger: what is due, and where the answers go.
        concurrency: questions in flight at once.

    Raises:
        FatalBackendError: no further question can be answered; what is in the ledger stays there.
    """
    waiting = ledger.waiting()
    if order := getattr(backend, "order", None):  # some are faster where like follows like
        waiting.sort(key=order)
    progress = Progress("generate", len(ledger.questions), len(ledger.questions) - len(waiting))
    queue = iter(waiting)
    stopping = asyncio.Event()

    async def work() -> None:
        for question in queue:  # shared by all workers: each takes the next one
            if stopping.is_set() or not ledger.reserve(question):
                return
            progress.advance(**await _ask(backend, ledger, question, stopping))

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(waiting)))]
    try:
        await asyncio.gather(*workers)
    except FatalBackendError:
        stopping.set()
        await asyncio.wait(workers, timeout=_GRACE)  # what is in flight may have been paid for
        raise
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        progress.close()
        await backend.close()


async def _ask(backend: Backend, ledger: Ledger, question: Question, stopping: asyncio.Event) -> dict[str, int]:
    """Ask one question until it is finished, and journal it; counts for the progress."""
    messages, counts = ledger.prompt(question), {"answers": 0, "tokens": 0}
    try:
        finished = False
        while not finished and not stopping.is_set():  # again where a server gives fewer choices than it was asked for
            completion = await backend.complete(messages, *ledger.due(question), question)
            counts["answers"] += len(completion.candidates)
            counts["tokens"] += completion.billed_completion_tokens or 0
            finished = ledger.keep(question, completion)
    except UnanswerableError as error:
        ledger.refuse(question, error)
        return {error.kind: 1}
    except BackendError as error:
        ledger.fail(question, error)
        return {"failed": 1}
    return counts


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also from within a running event loop, as a notebook's cells are."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
