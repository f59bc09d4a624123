"""Ways to ask through a batch API, for the tests of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_server import BatchServer

from excot.builders.generations import generate
from excot.config import GenerateConfig

HURRIED = """
import sys
from excot import cli
from excot.builders import batch_rounds, batch_steps
from excot.llm import batch
batch_rounds.FIRST_PAUSE = batch_rounds.LONGEST_PAUSE = batch_steps.SETTLING = 0.05
batch.MOST_REQUESTS = {"openai": 4, "azure": 4}
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command as a program of its own that does not wait long."""


class Killed(BaseException):
    """The process ends here: nothing catches this but the test."""


def batch(out: str, server: BatchServer, **options: Any) -> str:
    """Generate through a test's server, whose key and address are in the environment."""
    settings = {"model": "tiny", "n": 3, "backend": "azure-batch" if server.azure else "openai-batch"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        return generate(GenerateConfig(out=out, **{**settings, **options}))


def notes(out: str) -> dict[str, Any]:
    """What the run folder says was handed in."""
    return json.loads((Path(out) / ".excot" / "batches.json").read_text())


@contextmanager
def killed_at(request: int, after: bool) -> Iterator[list[str]]:
    """Die before a request leaves, or once its answer has come, counted from 0; all that are made by then."""
    made: list[str] = []
    send = openai.DefaultAsyncHttpxClient.send

    async def count(self: Any, asked: Any, **how: Any) -> Any:
        made.append(f"{asked.method} {asked.url.path}")
        if len(made) == request + 1 and not after:
            raise Killed
        answer = await send(self, asked, **how)
        if len(made) == request + 1:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai.DefaultAsyncHttpxClient, "send", count)
        yield made


def until_done(start: Callable[[], str], times: int = 20) -> int:
    """Start again and again until it lives to its end; how often that took."""
    for number in range(1, times):
        try:
            start()
            return number
        except Killed:
            pass
    raise AssertionError(f"not done after {times} starts")
