"""Looking at the service again and again, until every chunk of requests is as far as it shall be."""

from __future__ import annotations

import asyncio
import logging

from ..llm.base import FatalBackendError
from ..llm.batch_service import MayPass
from .batch_notes import Notes
from .batch_steps import Steps

log = logging.getLogger("excot")

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between two looks: each time half as long again, and short again when something has moved."""

PATIENCE = {"waiting": 60, "leaving": 3}
"""How many looks in succession may fail. Whoever wants to leave is better told that the service cannot be reached."""


async def work(notes: Notes, steps: Steps, wait: bool) -> None:
    """Take all chunks along.

    Args:
        notes: the chunks; there may be more of them at the end.
        steps: how one is taken along.
        wait: until all are collected; otherwise until the next step of each is the service's.

    Raises:
        ExcotError: the service takes nothing more, or cannot be reached.
    """
    pause, failures, said = FIRST_PAUSE, 0, ""
    if not _running(notes):
        _release(notes)
    while True:
        before, running = _state(notes), _running(notes)
        trouble = await _round(notes, steps)
        if _running(notes) < running:
            _release(notes)
        if trouble is None and not any(wait or steps.may_go_on(chunk) for chunk in notes.active):
            return
        failures = failures + 1 if trouble else 0
        if trouble and failures == PATIENCE["waiting" if wait else "leaving"]:
            raise trouble
        pause = FIRST_PAUSE if _state(notes) != before else min(1.5 * pause, LONGEST_PAUSE)
        if wait and not _running(notes) and _release(notes):
            pause = LONGEST_PAUSE  # the queue is full of what is not ours, or too short for what is
        if said != (said := trouble.problem if trouble else under_way(notes)):
            log.info("%s", said)
        await asyncio.sleep(pause)


def under_way(notes: Notes) -> str:
    """How far the chunks are that are not collected, in words."""
    running = [chunk for chunk in notes.active if chunk.step == "running"]
    held = sum(chunk.held for chunk in notes.active)
    done = sum(chunk.done for chunk in running)
    requests = sum(len(asks) for chunk in running for asks in chunk.questions.values())
    parts = [f"{_batches(len(running))} at {notes.endpoint}: {done:,} of {requests:,} requests are done"]
    if held:
        parts.append(f"{_batches(held)} more when the queue has room")
    if others := len(notes.active) - len(running) - held:
        parts.append(f"{_batches(others)} more to be handed in")
    return ", ".join(parts)


async def _round(notes: Notes, steps: Steps) -> MayPass | None:
    """Every chunk once; the trouble that one of them met. What ends the run ends it after the others' collection."""
    trouble: MayPass | None = None
    fatal: FatalBackendError | None = None
    for chunk in notes.chunks:  # which may get more on the way
        if fatal and chunk.step != "running":
            continue
        try:
            await steps.advance(chunk)
        except MayPass as error:
            trouble = error
        except FatalBackendError as error:
            fatal = fatal or error
    if fatal:
        raise fatal
    return trouble


def _state(notes: Notes) -> list[tuple[str, str]]:
    return [(chunk.step, chunk.status) for chunk in notes.chunks]


def _running(notes: Notes) -> int:
    return sum(chunk.step == "running" for chunk in notes.chunks)


def _release(notes: Notes) -> bool:
    """Let the next chunk that waits for room in the queue try it; whether there is one."""
    held = [chunk for chunk in notes.active if chunk.held]
    if held:
        held[0].held = False
    return bool(held)


def _batches(count: int) -> str:
    return "1 batch" if count == 1 else f"{count:,} batches"
