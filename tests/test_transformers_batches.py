"""The transformers backend with a tiny random Llama: what shares a batch, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from random_llama import QUESTIONS, ask, prompt

from excot.llm.base import BackendError, Completion, Message, Sampling
from excot.llm.transformers import Transformers

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches even where a busy machine pauses for a while."""
    monkeypatch.setattr("excot.llm.transformers._QUIET", 0.2)


def count_batches(backend: Transformers, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """From now on the prompt lengths of every batch."""
    batches: list[list[int]] = []
    generate = backend._generate

    def counting(batch: list[Any]) -> list[list[int]]:
        batches.append([len(sample.prompt) for sample in batch])
        return generate(batch)

    monkeypatch.setattr(backend, "_generate", counting)
    return batches


# -- batches


@pytest.mark.usefixtures("patient")
def test_questions_asked_together_share_batches_of_similar_length(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(batch_size=8)
    batches = count_batches(backend, monkeypatch)
    short, long = prompt(1), prompt(*[2] * 60)
    ask(backend, *[short, long] * 4, n=2)
    assert batches == [[4] * 8, [63] * 8]


@pytest.mark.usefixtures("patient")
def test_questions_that_arrive_one_after_the_other_still_make_full_batches(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(batch_size=8)
    batches = count_batches(backend, monkeypatch)
    encode = backend._encode

    def slow(messages: list[Message], max_tokens: int) -> list[int]:
        time.sleep(0.001)  # as long prompts take; the worker could start in between
        return encode(messages, max_tokens)

    monkeypatch.setattr(backend, "_encode", slow)

    async def run() -> None:
        places = asyncio.Semaphore(8)

        async def one(k: int) -> None:
            async with places:
                await backend.complete(prompt(k), 1, Sampling(max_tokens=8, seed=k), {})

        await asyncio.gather(*(one(k) for k in range(32)))

    asyncio.run(run())
    assert sum(map(len, batches)) == 32
    assert len(batches) <= 6  # 4 when the machine is idle


@pytest.mark.usefixtures("patient")
def test_other_settings_make_another_batch(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(batch_size=8)
    batches = count_batches(backend, monkeypatch)

    async def run() -> list[Completion]:
        settings = [Sampling(temperature=t, max_tokens=m) for t in (0.0, 1.0) for m in (2, 3)]
        return await asyncio.gather(*(backend.complete(prompt(1), 2, s, {}) for s in settings))

    completions = asyncio.run(run())
    assert [len(c.candidates) for c in completions] == [2] * 4
    assert [c.candidates[0].completion_tokens for c in completions] == [2, 3, 2, 3]
    assert sorted(map(len, batches)) == [1, 1, 2, 2]  # greedy answers are generated once


@pytest.mark.usefixtures("patient")
def test_a_full_memory_halves_the_batch_and_loses_nothing(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(make_backend(batch_size=8), *QUESTIONS, n=2)
    backend = make_backend(batch_size=8)
    generate = backend._model.generate
    sizes: list[int] = []

    def small(ids: Any, **rest: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(ids, **rest)

    monkeypatch.setattr(backend._model, "generate", small)
    assert ask(backend, *QUESTIONS, n=2) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    monkeypatch.setattr(backend._model, "generate", lambda ids, **rest: small(torch.zeros(4)))
    with pytest.raises(BackendError, match="memory ran out for a single sample.*prompt of 4 tokens"):
        ask(backend, prompt(1))


def test_an_exception_of_the_worker_reaches_all_who_wait_and_the_next_question_works(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("in the model")

    async def run() -> list[Any]:
        calls = (backend.complete(q, 2, Sampling(max_tokens=4), {}) for q in QUESTIONS)
        return await asyncio.gather(*calls, return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(backend._model, "generate", broken)
        assert [type(result) for result in asyncio.run(run())] == [ZeroDivisionError] * 6
    assert len(ask(backend, prompt(1))[0].candidates) == 1


def test_a_cancelled_question_leaves_the_queue(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend(batch_size=2)
    batches = count_batches(backend, monkeypatch)

    async def run() -> None:
        first = asyncio.create_task(backend.complete(prompt(1), 2, Sampling(max_tokens=100), {}))
        await asyncio.sleep(0)
        second = asyncio.create_task(backend.complete(prompt(2), 50, Sampling(max_tokens=100), {}))
        await asyncio.sleep(0)
        second.cancel()
        await first

    asyncio.run(run())
    ask(backend, prompt(3))
    assert sum(map(len, batches)) <= 5


# -- closing


def test_close_stops_the_thread_fails_who_waits_and_frees_the_model(make_backend: Callable[..., Transformers]) -> None:
    backend = make_backend(batch_size=2)
    model = weakref.ref(backend._model)

    async def run() -> list[Any]:
        calls = [asyncio.create_task(backend.complete(q, 8, Sampling(max_tokens=150), {})) for q in QUESTIONS]
        await asyncio.sleep(0.05)
        await backend.close()
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)

    results = asyncio.run(run())
    assert all(isinstance(result, (Completion, BackendError)) for result in results)
    assert isinstance(results[-1], BackendError)
    assert "excot-transformers" not in [thread.name for thread in threading.enumerate()]
    gc.collect()
    assert model() is None
    with pytest.raises(BackendError, match="is closed"):
        ask(backend, prompt(1), max_tokens=1)
