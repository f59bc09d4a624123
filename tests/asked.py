"""The OpenAI backend asked once, or a few times at once: its answer, or its error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from excot.llm.base import BackendError, Completion, FatalBackendError, Sampling
from excot.llm.openai import OpenAI

MESSAGES = [{"role": "user", "content": "How many singers are there?"}]


def ask(backend: OpenAI, n: int = 1, times: int = 1, **sampling: Any) -> Completion:
    """``complete`` once, or ``times`` at the same time (the last answer is returned), then ``close``."""

    async def run() -> Completion:
        try:
            calls = (backend.complete(MESSAGES, n, Sampling(**sampling), {}) for _ in range(times))
            return (await asyncio.gather(*calls))[-1]
        finally:
            await backend.close()

    return asyncio.run(run())


def texts(completion: Completion) -> list[str | None]:
    return [candidate.text for candidate in completion.candidates]


def the_error(backend: OpenAI, n: int = 1, **sampling: Any) -> BackendError | FatalBackendError:
    with pytest.raises((BackendError, FatalBackendError)) as caught:
        ask(backend, n, **sampling)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return caught.value
