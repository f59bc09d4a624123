"""How hard a service is pressed: as many requests at once as it takes, pauses where it asks for them, retries."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import ExcotError
from .base import FatalBackendError

log = logging.getLogger("excot")

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_CROWDED = 0.5, 8.0, 30.0  # s, where the service does not say how long
_CROWDED = (429, 503)
_WORTH_SAYING = 10.0  # s; whoever watches wonders about a longer standstill


class Setback(Exception):
    """A request failed in a way that may pass.

    Args:
        error: what to raise where it does not pass.
        status: the HTTP status, where there was an answer: 429 and 503 say that there are too many requests.
        wait: seconds that the service asks for; 0 where it does not say.
    """

    def __init__(self, error: ExcotError, status: int | None = None, wait: float = 0.0):
        super().__init__(str(error))
        self.error = error
        self.status = status
        self.wait = wait


class Throttle:
    """Bounds the requests in flight to what the service takes, for all who ask it through this object.

    Every 429 or 503 halves how many may be in flight, every answer makes it grow again by one for each round of them;
    a pause that the service asks one request for is made by all. Being over the rate limit (429) never fails a
    request as long as anybody is answered at all; any other passing trouble does, after its retries.

    As a context manager it is one place among those in flight; `ask` does all of it.

    Args:
        ceiling: the most requests in flight; ``None`` for no bound but the service's.
        max_retries: how often one request is tried again after trouble other than the rate limit.
        patience: seconds of nothing but 429 after which the service is given up.
    """

    def __init__(self, ceiling: int | None = None, max_retries: int = 8, patience: float = 3600.0):
        self._ceiling = float(ceiling or "inf")
        self._limit = self._ceiling
        self._max_retries = max_retries
        self._patience = patience
        self._hopeless = max(10, 3 * (ceiling or 0))  # requests that fail for good one after the other
        self._in_flight = 0
        self._entries = 0
        self._cut_at = 0  # the entries when the limit was last cut
        self._resume_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._cuts = 0  # since the last answer
        self._limited_since: float | None = None
        self._failed = 0

    @property
    def limit(self) -> float:
        """How many requests may be in flight now."""
        return self._limit

    async def ask(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a request; again where it failed in a way that may pass.

        Args:
            attempt: makes the request once; raises `Setback` for what may pass.

        Raises:
            ExcotError: the error of a `Setback` that came once too often; whatever else ``attempt`` raises.
            FatalBackendError: nobody is answered any more.
        """
        failures, started = 0, time.monotonic()
        while True:
            try:
                async with self:
                    entry = self._entries
                    answer = await attempt()
                self._grow()
                return answer
            except Setback as setback:
                pause = 0.0
                if setback.status in _CROWDED:  # all pause, this request among them
                    self._shrink(setback.wait, entry)
                else:
                    pause = max(setback.wait, _backoff(failures, _LONGEST_PAUSE))
                if setback.status == 429:
                    self._lose_patience(setback)
                    if time.monotonic() - started > self._patience:  # others are answered, this one never is
                        raise setback.error from None
                elif failures == self._max_retries:
                    raise self._failure(setback) from None
                else:
                    failures += 1
            await asyncio.sleep(pause)

    async def __aenter__(self) -> Throttle:
        await self._pause()
        while self._in_flight + 1 > self._limit:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
                await self._pause()
            except asyncio.CancelledError:
                self._wake()  # the place may have been given to us already
                raise
        self._in_flight += 1
        self._entries += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._in_flight -= 1
        self._wake()

    async def _pause(self) -> None:
        """Wait until no pause is to be made any more: while one is made, a longer one may be asked for."""
        known = 0.0
        while known < self._resume_at and time.monotonic() < self._resume_at:
            known = self._resume_at
            await asyncio.sleep(known - time.monotonic())

    def _wake(self) -> None:
        taken = self._in_flight
        while self._waiting and taken + 1 <= self._limit:
            place = self._waiting.popleft()
            if not place.done():  # else whoever waited was cancelled
                place.set_result(None)
                taken += 1

    def _grow(self) -> None:
        self._limit = min(self._ceiling, self._limit + 1 / self._limit)
        self._cuts = self._failed = 0
        self._limited_since = None

    def _shrink(self, wait: float, entry: int) -> None:
        # Requests that were in flight together are refused together: that is one reason to slow down, not many.
        pause = wait
        if entry > self._cut_at:
            self._limit = max(1.0, min(self._limit, self._in_flight + 1) / 2)
            self._cut_at = self._entries
            pause = wait or _backoff(self._cuts, _LONGEST_CROWDED)
            self._cuts += 1
        if pause >= _WORTH_SAYING and time.monotonic() + pause > self._resume_at + 1:
            log.info("the service asks us to slow down: a pause of %.0f s", pause)
        self._resume_at = max(self._resume_at, time.monotonic() + pause)

    def _lose_patience(self, setback: Setback) -> None:
        now = time.monotonic()
        self._limited_since = self._limited_since or now
        seconds = now - self._limited_since
        if seconds + setback.wait > self._patience:
            raise FatalBackendError(
                f"{setback.error.problem}, after {seconds:.0f} s without one answer to anybody",
                "start again later; what is finished is kept",
            ) from None

    def _failure(self, setback: Setback) -> ExcotError:
        self._failed += 1
        if self._failed < self._hopeless:
            return setback.error
        return FatalBackendError(
            f"{self._failed} requests failed one after the other, the last with: {setback.error.problem}",
            "look into the server's log, then start again; what is finished is kept",
        )


def _backoff(times: int, longest: float) -> float:
    """A pause that doubles each time, with jitter, so that those who failed together do not come back together."""
    return min(longest, _FIRST_PAUSE * 2 ** min(times, 10)) * random.uniform(0.75, 1.0)
