"""How hard a service is pressed: requests in flight, pauses, retries, and when it is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from excot.errors import ExcotError
from excot.llm.base import BackendError, FatalBackendError
from excot.llm.throttle import Setback, Throttle


class Service:
    """Answers after a while; refuses whatever is more than ``takes`` at once."""

    def __init__(self, takes: int, seconds: float = 0.005, wait: float = 0.01):
        self.takes, self.seconds, self.wait = takes, seconds, wait
        self.at_once = self.most = self.answered = self.refused = 0

    async def __call__(self) -> str:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.at_once > self.takes:
                self.refused += 1
                raise Setback(BackendError("too many"), 429, self.wait)
            await asyncio.sleep(self.seconds)
            self.answered += 1
            return "answer"
        finally:
            self.at_once -= 1


def ask(throttle: Throttle, attempt: Callable[[], Awaitable[Any]], times: int = 1) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(throttle.ask(attempt) for _ in range(times)), return_exceptions=True)

    return asyncio.run(all_of_them())


def failing(*setbacks: Setback, calls: list[float] | None = None) -> Callable[[], Awaitable[str]]:
    """Fails so many times, then answers."""
    left = list(setbacks)

    async def attempt() -> str:
        if calls is not None:
            calls.append(time.monotonic())
        if left:
            raise left.pop(0)
        return "answer"

    return attempt


def trouble(status: int | None = 500, wait: float = 0.0) -> Setback:
    return Setback(BackendError(f"HTTP {status}"), status, wait)


# -- requests in flight


def test_no_more_are_in_flight_than_the_ceiling() -> None:
    service = Service(takes=100)
    assert ask(Throttle(7), service, 50) == ["answer"] * 50
    assert service.most == 7


def test_it_settles_at_what_the_service_takes_and_everybody_is_answered() -> None:
    service, throttle = Service(takes=5), Throttle(64)
    assert ask(throttle, service, 400) == ["answer"] * 400
    assert 1 <= throttle.limit <= 12
    assert service.refused < 200


def test_requests_refused_together_halve_the_limit_once() -> None:
    async def at_once() -> None:
        gate = asyncio.Event()

        async def refused() -> None:
            await gate.wait()
            raise Setback(FatalBackendError("no"), 429, wait=0.0)

        throttle = Throttle(16, patience=-1.0)
        tasks = [asyncio.create_task(throttle.ask(refused)) for _ in range(16)]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert throttle.limit == pytest.approx(8, abs=0.5)

    asyncio.run(at_once())


def test_it_grows_again_by_one_each_round() -> None:
    service, throttle = Service(takes=0, wait=0.001), Throttle(32)

    async def recover() -> None:
        tasks = [asyncio.create_task(throttle.ask(service)) for _ in range(200)]
        await asyncio.sleep(0.1)
        assert throttle.limit < 4
        service.takes = 1000
        await asyncio.gather(*tasks)

    asyncio.run(recover())
    assert 10 < throttle.limit <= 32
    assert service.most <= 32


def test_a_request_that_is_cancelled_gives_its_place_to_the_next() -> None:
    async def cancelled_while_waiting() -> None:
        throttle = Throttle(1)
        async with throttle:
            tasks = [asyncio.create_task(throttle.ask(failing())) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
        tasks[1].cancel()  # it may have been given the place in this very moment
        assert await asyncio.wait_for(tasks[2], 5) == "answer"

    asyncio.run(cancelled_while_waiting())


# -- pauses


@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_that_one_is_asked_for_is_made_by_all(status: int) -> None:
    calls: list[float] = []

    async def both() -> None:
        throttle = Throttle(4)
        await throttle.ask(failing(trouble(status, wait=0.2), calls=calls))
        assert calls[1] - calls[0] >= 0.2

        first = asyncio.create_task(throttle.ask(failing(trouble(status, wait=0.2), calls=calls)))
        await asyncio.sleep(0.01)
        started = time.monotonic()
        await throttle.ask(failing(calls=calls))
        assert time.monotonic() - started > 0.15
        await first

    asyncio.run(both())


def test_trouble_of_one_request_makes_nobody_else_wait() -> None:
    async def both() -> None:
        throttle = Throttle(4)
        first = asyncio.create_task(throttle.ask(failing(trouble(500, wait=0.3))))
        await asyncio.sleep(0.01)
        started = time.monotonic()
        await throttle.ask(failing())
        assert time.monotonic() - started < 0.1
        await first

    asyncio.run(both())


def test_pauses_grow_where_the_service_names_none(no_backoff: list[float]) -> None:
    ask(Throttle(1), failing(*[trouble(429)] * 9))
    assert all(1.4 < later / earlier < 2.7 for earlier, later in pairwise(no_backoff[:6]))
    assert 20 < max(no_backoff) <= 30
    ask(Throttle(1), failing(*[trouble(500)] * 8))
    assert max(no_backoff[9:]) <= 8


# -- when enough is enough


@pytest.mark.usefixtures("no_backoff")
def test_rate_limits_count_against_nobody_and_other_troubles_do() -> None:
    assert ask(Throttle(1, max_retries=2), failing(*[trouble(429)] * 50)) == ["answer"]
    assert ask(Throttle(1, max_retries=2), failing(*[trouble(500)] * 2)) == ["answer"]
    for status in (500, 503, 408, None):
        (error,) = ask(Throttle(1, max_retries=2), failing(*[trouble(status)] * 3))
        assert isinstance(error, BackendError)


def test_patience_with_rate_limits_ends_and_begins_anew_with_every_answer() -> None:
    (error,) = ask(Throttle(1, patience=0.2), failing(*[trouble(429, wait=0.05)] * 50))
    assert isinstance(error, FatalBackendError)
    assert "without one answer to anybody" in str(error)
    throttle = Throttle(1, patience=0.2)
    for _ in range(4):
        assert ask(throttle, failing(*[trouble(429, wait=0.05)] * 3)) == ["answer"]


def test_one_that_is_refused_for_ever_while_others_are_answered_fails_alone() -> None:
    async def both() -> None:
        throttle = Throttle(4, patience=0.3)
        stuck = asyncio.create_task(throttle.ask(failing(*[trouble(429, wait=0.01)] * 500)))
        while not stuck.done():
            assert await throttle.ask(failing()) == "answer"
            await asyncio.sleep(0.01)
        assert type(stuck.exception()) is BackendError

    asyncio.run(both())


def test_a_pause_beyond_all_patience_is_not_begun() -> None:
    started = time.monotonic()
    (error,) = ask(Throttle(1, patience=10), failing(trouble(429, wait=11)))
    assert isinstance(error, FatalBackendError)
    assert time.monotonic() - started < 1


@pytest.mark.usefixtures("no_backoff")
def test_a_service_that_fails_everybody_is_given_up() -> None:
    throttle = Throttle(4, max_retries=1)
    found = [ask(throttle, failing(*[trouble()] * 2))[0] for _ in range(12)]
    assert [type(error) for error in found] == [BackendError] * 11 + [FatalBackendError]
    assert str(found[-1]).startswith("12 requests failed one after the other, the last with: HTTP 500")


@pytest.mark.usefixtures("no_backoff")
def test_a_service_that_answers_somebody_is_not_given_up() -> None:
    throttle = Throttle(4, max_retries=1)
    for _ in range(4):
        assert all(type(ask(throttle, failing(*[trouble()] * 2))[0]) is BackendError for _ in range(11))
        assert ask(throttle, failing()) == ["answer"]


def test_whatever_else_is_raised_comes_through_at_once() -> None:
    async def refuses() -> None:
        raise ExcotError("no such model")

    (error,) = ask(Throttle(1), refuses)
    assert str(error) == "no such model"
