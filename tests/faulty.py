"""An endpoint that does everything wrong that endpoints do, by the dice; and one that keeps to a rate limit.

with ChatServer(otherwise=Faulty(seed=3)) as server: ...
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from chain import place
from servers import Reply, Request, chat, failure

PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"


def truth(request: Request, count: int | None = None) -> Reply:
    """What an endpoint says that works: each choice names its question, the request's seed and its own place."""
    count = request.json.get("n", 1) if count is None else count
    return chat(*(f"{place(request)}/{request.json.get('seed')}/{k}" for k in range(count)))


PASSING: dict[str, Callable[[Request], Reply]] = {
    "a rate limit": lambda r: failure(429, "slow down", headers={"Retry-After": "0.01"}),
    "a rate limit without a word": lambda r: failure(429, "slow down"),
    "an error of the server": lambda r: failure(500, "CUDA error"),
    "a page of the proxy": lambda r: Reply(PAGE, 502),
    "no room": lambda r: Reply("", 503, {"Retry-After": "0.01"}),
    "no answer": lambda r: Reply(reset=True),
    "a connection that breaks in mid-answer": lambda r: Reply(truth(r).body, cut=40),
    "half a body": lambda r: Reply(
        b'{"choices": [{"message": {"content": "SEL', headers={"Content-Type": "text/json"}
    ),
    "an empty body": lambda r: Reply(""),
    "an answer that comes too late": lambda r: Reply(truth(r).body, drip=0.2),
}
"""Troubles that a second try may be spared."""

ANSWERS: dict[str, Callable[[Request], Reply]] = {
    "one choice": lambda r: truth(r, 1),
    "a choice too many": lambda r: truth(r, r.json["n"] + 1),
    "slow bytes": lambda r: Reply(truth(r).body, drip=0.001),
    "null": lambda r: _empty(truth(r), None),
    "an empty text": lambda r: _empty(truth(r), ""),
}
"""Answers that are odd, and are answers."""

FINAL: dict[str, Callable[[Request], Reply]] = {
    "too long": lambda r: failure(400, "maximum context length is 10 tokens, your messages resulted in 11 tokens"),
    "filtered": lambda r: failure(400, "the prompt was flagged", code="content_filter"),
    "refused": lambda r: failure(400, "I do not like this one"),
    "no choices": lambda r: Reply({"choices": []}),
}
"""What no second try is made for."""


class Faulty:
    """Meets each request with trouble, by dice that depend on the question and how often it was asked.

    Args:
        seed: of the dice.
        trouble: how many requests of a hundred meet a trouble that passes.

    Attributes:
        met: how often each fault was met.
    """

    def __init__(self, seed: int, trouble: int = 35):
        self.met: Counter[str] = Counter()
        self._seed, self._trouble = seed, trouble
        self._asked: Counter[int] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            self._asked[place(request)] += 1
            dice = random.Random(f"{self._seed}/{place(request)}/{self._asked[place(request)]}")
            draw = dice.randrange(100)
            kind = PASSING if draw < self._trouble else ANSWERS if draw < 65 else FINAL if draw < 68 else None
            if kind is None:
                return truth(request)
            name = dice.choice(list(kind))
            self.met[name] += 1
        return kind[name](request)


class Limited:
    """A token bucket before an endpoint: ``rate`` requests a second, ``burst`` at once, 429 for all others."""

    def __init__(self, rate: float, burst: int, retry_after: str | None = None):
        self.refused = 0
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._filled = float(burst), time.monotonic()
        self._retry_after = retry_after
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return truth(request)
            self.refused += 1
        headers = {} if self._retry_after is None else {"Retry-After": self._retry_after}
        return failure(429, "Rate limit reached for requests", headers=headers, code="rate_limit_exceeded")


def _empty(reply: Reply, content: str | None) -> Reply:
    for choice in reply.body["choices"]:
        choice["message"]["content"], choice["finish_reason"] = content, "content_filter"
    return reply
