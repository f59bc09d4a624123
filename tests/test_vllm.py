"""A real vLLM on the CPU: its server behind the openai backend, and the vllm backend in process.

`make test-vllm` sets up what it takes. In 32-bit types the same seeds give the same answers on every road to them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chain import answers, rows_of
from command import Finished, done, excot, python, start
from vllm_world import (
    LENGTH,
    MODEL,
    end,
    journaled,
    one_too_long,
    save_adapter,
    twenty_questions,
    vllm_server,
)

from excot.llm.base import BackendError, Completion, FatalBackendError, Sampling, UnanswerableError

pytest.importorskip("vllm", reason="no vLLM here: make test-vllm runs these tests with a real one")
pytestmark = pytest.mark.timeout(900)  # an engine takes a minute to start

ASKED = ("--n", 4, "--max-tokens", 32, "--prompt", "direct", "--seed", 3)
IN_PROCESS = (*ASKED, "--backend", "vllm", "--model", MODEL, "--max-model-len", LENGTH)

IN_32_BITS = """
import functools, sys
import excot.llm.vllm
from excot.cli import main
excot.llm.vllm.VLLM = functools.partial(excot.llm.vllm.VLLM, dtype="float32")
if __name__ == "__main__":
    sys.exit(main())
"""

Rows = list[dict[str, Any]]


def kill_half_way(out: str, process: Any) -> None:
    """Wait until a run has finished some questions, but by far not all, and end it."""
    while journaled(out) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    end(process)
    assert journaled(out) < 20


# -- the server


@dataclass
class Served:
    """What came of asking the server: the rows of a run from end to end, those of one that was killed half way and
    started again, those of questions of which one is too long, and how asking for another model ended."""

    whole: Rows
    killed: Rows
    too_long: Rows
    unknown: Finished


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    whole, killed, other = (twenty_questions(tmp_path_factory.mktemp("run")) for _ in range(3))
    crowded = one_too_long(tmp_path_factory.mktemp("run"))
    with vllm_server() as url:
        by_server = (*ASKED, "--base-url", url, "--model")
        done("generate", "--out", whole, *by_server, "smol")
        process = start("generate", "--out", killed, *by_server, "smol", "--concurrency", 2, start_new_session=True)
        kill_half_way(killed, process)
        done("generate", "--out", killed, *by_server, "smol")
        done("generate", "--out", crowded, *by_server, "smol")
        unknown = excot("generate", "--out", other, *by_server, "other")
    return Served(*(rows_of(out, "generations") for out in (whole, killed, crowded)), unknown)


def test_the_server_gives_four_answers_by_one_seeded_request(served: Served) -> None:
    assert len(served.whole) == 20
    for row in served.whole:
        assert len(row["candidates"]) == 4
        assert {c["seed"] for c in row["candidates"]} == {json.loads(row["sampling"])["seed"]}
        assert row["model"] == "smol"
        assert row["prompt_tokens"] > 100
        assert 4 <= row["completion_tokens"] <= 4 * 32
    assert len({json.loads(row["sampling"])["seed"] for row in served.whole}) == 20
    assert sum(len(set(answers(row))) for row in served.whole) > 60  # samples differ
    reasons = Counter(c["finish_reason"] for row in served.whole for c in row["candidates"])
    assert set(reasons) == {"stop", "length"}


def test_killed_and_started_again_the_server_has_given_the_same_rows(served: Served) -> None:
    assert served.killed == served.whole


def test_what_the_server_has_no_room_for_is_recorded_and_the_run_goes_on(served: Served) -> None:
    assert [row["failure"] for row in served.too_long] == [None, "too_long", None]
    assert served.too_long[1]["prompt_tokens"] is None  # it says "at least", and not how many there are
    assert [len(row["candidates"]) for row in served.too_long] == [4, 0, 4]


def test_a_model_that_the_server_does_not_have_is_one_line(served: Served) -> None:
    assert served.unknown.code == 1
    assert "no model 'other'" in served.unknown.error()


# -- in process


def test_killed_and_started_again_in_process_the_answers_are_those_of_the_server(
    served: Served, tmp_path: Path
) -> None:
    out = twenty_questions(tmp_path)
    command = ("generate", "--out", out, *IN_PROCESS)
    process = python(IN_32_BITS, *command, "--concurrency", 2, start_new_session=True)
    kill_half_way(out, process)
    process = python(IN_32_BITS, *command)
    said, noise = process.communicate(timeout=600)
    assert process.returncode == 0, noise
    assert said.splitlines()[0].startswith("80 answers to 20 of 20 questions by ")  # and nothing of vLLM's
    assert said.splitlines()[1].startswith("next: ")
    for ours, theirs in zip(rows_of(out, "generations"), served.whole, strict=True):
        first = json.loads(ours["sampling"])["seed"]
        assert [c["seed"] for c in ours["candidates"]] == [first + k for k in range(4)]
        assert answers(ours) == answers(theirs)
        assert [c["finish_reason"] for c in ours["candidates"]] == [c["finish_reason"] for c in theirs["candidates"]]
        assert sum(c["completion_tokens"] for c in ours["candidates"]) == theirs["completion_tokens"]
        assert ours["prompt_tokens"] == theirs["prompt_tokens"]


PROMPTS = [[{"role": "user", "content": text}] for text in ("Name three animals.", "Name a colour.", "Count to five.")]
ENDLESS = [{"role": "user", "content": "many " * 9000}]
GREEDY = Sampling(temperature=0.0, max_tokens=24)
DRAWN = Sampling(max_tokens=24, seed=11)


@dataclass
class Adapted:
    """What came of asking two copies of the model with an adapter: greedy answers, samples of a question asked among
    others and alone, and the exceptions of a prompt that is too long, of a dead engine and of a closed one."""

    described: dict[str, Any]
    greedy: list[Completion]
    among_others: Completion
    alone: Completion
    errors: list[BaseException]
    left: list[str]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def adapted(adapter: Path) -> Adapted:
    from excot.llm.vllm import VLLM

    backend = VLLM(str(MODEL), adapter=str(adapter), data_parallel_size=2, max_model_len=LENGTH, dtype="float32")

    async def failing(messages: Any) -> BaseException:
        with pytest.raises((BackendError, FatalBackendError)) as caught:
            await backend.complete(messages, 1, DRAWN, {})
        return caught.value

    async def run() -> Adapted:
        greedy = await asyncio.gather(*(backend.complete(prompt, 3, GREEDY, {}) for prompt in PROMPTS))
        among_others, *_ = await asyncio.gather(*(backend.complete(prompt, 4, DRAWN, {}) for prompt in PROMPTS))
        alone = await backend.complete(PROMPTS[0], 4, DRAWN, {})
        errors = [await failing(ENDLESS)]
        for process in engines():
            process.kill()
        errors.append(await failing(PROMPTS[0]))
        await backend.close()
        errors.append(await failing(PROMPTS[0]))
        return Adapted(backend.describe(), greedy, among_others, alone, errors, [p.name() for p in engines()])

    return asyncio.run(run())


def engines() -> list[Any]:
    """The processes that vLLM has started from this one."""
    import psutil

    return [process for process in psutil.Process().children(recursive=True) if "VLLM" in process.name()]


def test_a_question_is_answered_alike_alone_and_among_others(adapted: Adapted) -> None:
    assert adapted.alone == adapted.among_others
    assert [candidate.seed for candidate in adapted.alone.candidates] == [11, 12, 13, 14]
    assert len({candidate.text for candidate in adapted.alone.candidates}) > 1
    assert adapted.alone.billed_completion_tokens == sum(c.completion_tokens for c in adapted.alone.candidates)


def test_greedy_answers_are_those_of_transformers_with_the_same_adapter(adapted: Adapted, adapter: Path) -> None:
    from excot.llm.transformers import Transformers

    def greedy(**options: Any) -> list[Completion]:
        async def run() -> list[Completion]:
            backend = Transformers(str(MODEL), dtype="float32", **options)
            try:
                return await asyncio.gather(*(backend.complete(prompt, 3, GREEDY, {}) for prompt in PROMPTS))
            finally:
                await backend.close()

        return asyncio.run(run())

    assert adapted.greedy == greedy(adapter=str(adapter))
    assert [c.candidates for c in adapted.greedy] != [c.candidates for c in greedy()]
    assert {c.seed for completion in adapted.greedy for c in completion.candidates} == {None}


def test_what_was_run_is_described(adapted: Adapted) -> None:
    described = {key: adapted.described[key] for key in ("backend", "dtype", "max_model_len", "data_parallel_size")}
    assert described == {"backend": "vllm", "dtype": "float32", "max_model_len": LENGTH, "data_parallel_size": 2}


def test_each_failure_is_told_for_what_it_is(adapted: Adapted) -> None:
    too_long, dead, closed = adapted.errors
    assert isinstance(too_long, UnanswerableError)
    assert (too_long.kind, too_long.prompt_tokens) == ("too_long", 9031)
    assert isinstance(dead, FatalBackendError)
    assert "engine has died" in str(dead)
    assert isinstance(closed, BackendError)
    assert "is closed" in str(closed)
    assert adapted.left == []


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_a_model_that_is_not_there_is_one_line(backend: str, tmp_path: Path) -> None:
    result = excot("generate", "--out", twenty_questions(tmp_path), "--backend", backend, "--model", tmp_path / "none")
    assert result.code == 1
    assert f"no model folder {tmp_path / 'none'}" in result.error()


def test_more_room_than_the_model_has_is_refused_in_one_line() -> None:
    from excot.llm.vllm import VLLM

    with pytest.raises(FatalBackendError, match=r"cannot run .*max_model_len \(99999\) is greater than"):
        VLLM(str(MODEL), max_model_len=99999)


# -- the same model through transformers


def test_the_transformers_backend_runs_on_the_same_model(tmp_path: Path) -> None:
    out = twenty_questions(tmp_path)
    options = ("--backend", "transformers", "--model", MODEL, "--limit", 4)
    done("generate", "--out", out, *ASKED, *options, "--n", 2)
    rows = rows_of(out, "generations")
    assert len(rows) == 4
    for row in rows:
        assert len({candidate["seed"] for candidate in row["candidates"]}) == 2
        assert {candidate["finish_reason"] for candidate in row["candidates"]} <= {"stop", "length"}
        assert all(0 < candidate["completion_tokens"] <= 32 for candidate in row["candidates"])


def test_the_transformers_backend_records_what_is_too_long_as_well(tmp_path: Path) -> None:
    out = one_too_long(tmp_path)
    done("generate", "--out", out, *ASKED, "--backend", "transformers", "--model", MODEL, "--n", 1)
    assert [row["failure"] for row in rows_of(out, "generations")] == [None, "too_long", None]
