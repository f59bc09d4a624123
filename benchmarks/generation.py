"""Generation, of a server that answers at once: our requests beside a bare client's loop, and a large run's memory."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import Pipe, Process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONCURRENCY = 32
REQUESTS, ROUNDS = 1500, 3
QUESTIONS, N, TOKENS = 9375, 32, 600  # 300,000 answers


def run() -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the bare loop's time over ours, and a GB over the peak of memory."""
    with TemporaryDirectory() as folder:
        return [*_requests(Path(folder) / "requests"), _memory(Path(folder) / "memory")]


def _requests(folder: Path) -> list[dict[str, Any]]:
    out = _questions(folder, REQUESTS)
    bare, ours = [], []
    with _server(tokens=100) as url:
        for turn in range(ROUNDS):
            programs = [(bare, "bare"), (ours, "ours")]
            for seconds, program in programs if turn % 2 else reversed(programs):  # neither is always the first
                seconds.append(_measure(program, out, url, 1)["seconds"])
    note = f"{REQUESTS / min(bare):,.0f}/s, {CONCURRENCY} at once, the fastest of {ROUNDS} rounds"
    return [
        {"what": "generate: a loop around AsyncOpenAI", "seconds": min(bare), "ratio": 1.0, "note": note},
        {
            "what": "generate: the stage's requests, journaled",
            "seconds": min(ours),
            "ratio": min(bare) / min(ours),
            "note": f"{REQUESTS / min(ours):,.0f}/s",
        },
    ]


def _memory(folder: Path) -> dict[str, Any]:
    out = _questions(folder, QUESTIONS)
    with _server(tokens=TOKENS) as url:
        found = _measure("ours", out, url, N)
    gigabytes = found["bytes"] / 1e9
    journal = (Path(out) / ".excot" / "generations.jsonl").stat().st_size / 1e9
    written = sum(path.stat().st_size for path in (Path(out) / "generations").iterdir()) / 1e9
    return {
        "what": f"generate: {QUESTIONS * N:,} answers of {TOKENS} tokens",
        "seconds": found["whole"],
        "ratio": 1 / gigabytes,
        "note": f"peak memory {gigabytes:.2f} GB, journal {journal:.2f} GB, dataset {written:.2f} GB",
    }


def _measure(program: str, out: str, url: str, n: int) -> dict[str, float]:
    """One of the two programs below in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.generation", program, out, url, str(n)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# -- the two programs


def _ours(out: str, url: str, n: int) -> dict[str, float]:
    """The stage; ``seconds`` are those of the requests, ``whole`` has the writing of the dataset in it."""
    from excot.builders import generations
    from excot.config import GenerateConfig

    seconds, run_to_end = [], generations.run_to_end

    def timed(work: Any) -> Any:
        started = time.perf_counter()
        try:
            return run_to_end(work)
        finally:
            seconds.append(time.perf_counter() - started)

    generations.run_to_end = timed
    started = time.perf_counter()
    options = {"n": n, "base_url": url, "concurrency": CONCURRENCY, "overwrite": True}
    generations.generate(GenerateConfig(out=out, model="tiny", **options))
    return {"seconds": seconds[0], "whole": time.perf_counter() - started, "bytes": _peak()}


def _bare(out: str, url: str, n: int) -> dict[str, float]:
    """What one would write instead: the same requests by a few workers, the answers' texts kept in memory."""
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    from excot.prompts import load_prompt
    from excot.run import Run

    prompt = load_prompt("divide_and_conquer")
    rows = Run(out).read("questions")
    prompts = [prompt.messages(row["question"], row["schema"], row["evidence"]) for row in rows]

    async def ask_all() -> list[list[str | None]]:
        answers, waiting = [], iter(enumerate(prompts))
        async with AsyncOpenAI(base_url=url, api_key="none", http_client=DefaultAsyncHttpxClient()) as client:

            async def work() -> None:
                for seed, messages in waiting:
                    completion = await client.chat.completions.create(
                        model="tiny", messages=messages, n=n, temperature=1.0, top_p=1.0, max_tokens=4096, seed=seed
                    )
                    answers.append([choice.message.content for choice in completion.choices])

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        return answers

    started = time.perf_counter()
    assert len(asyncio.run(ask_all())) == len(prompts)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "whole": seconds, "bytes": _peak()}


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# -- the world around them


def _questions(folder: Path, count: int) -> str:
    """A run folder with so many questions on a database whose schema text has the length of a real one's."""
    from excot.builders.questions import make_questions
    from excot.config import QuestionsConfig

    data = folder / "data"
    path = data / "database" / "wide" / "wide.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        for table in range(20):
            columns = ", ".join(f"column_{k} TEXT" for k in range(6))
            connection.execute(f"CREATE TABLE table_{table} (id INTEGER PRIMARY KEY, {columns})")
            values = ", ".join(f"'value {table} {k}'" for k in range(6))
            connection.execute(f"INSERT INTO table_{table} VALUES (1, {values})")
        connection.commit()
    with (data / "train.jsonl").open("w") as lines:
        for k in range(count):
            row = {"question": f"What about {k}?", "db_id": "wide", "gold_sql": f"SELECT id FROM table_{k % 20}"}
            lines.write(json.dumps(row) + "\n")
    make_questions(QuestionsConfig(benchmark="folder", data=str(data), out=str(folder / "run")))
    return str(folder / "run")


@contextmanager
def _server(tokens: int) -> Iterator[str]:
    """The address of a server that answers at once with as many choices as it is asked for."""
    ours, theirs = Pipe()
    process = Process(target=_serve, args=(theirs, tokens), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Any, tokens: int) -> None:
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(1, 7))) for _ in range(5000)]
    text = " ".join(dice.choices(words, k=400_000))
    length = 4 * tokens

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.received = transport, b""

        def data_received(self, data: bytes) -> None:
            self.received += data
            head, end, body = self.received.partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if not end or len(body) < size:
                return
            self.received = body[size:]
            n = json.loads(body[:size]).get("n", 1)
            starts = (dice.randrange(len(text) - length) for _ in range(n))
            choices = ",".join(
                f'{{"index":{k},"message":{{"role":"assistant","content":"{text[start : start + length]}"}},'
                f'"finish_reason":"stop"}}'
                for k, start in enumerate(starts)
            )
            usage = f'{{"prompt_tokens":1500,"completion_tokens":{n * tokens},"total_tokens":{1500 + n * tokens}}}'
            answer = (
                '{"id":"c","object":"chat.completion","created":1,"model":"tiny","choices":'
                f'[{choices}],"usage":{usage}}}'
            ).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            self.transport.write(head.encode() + answer)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    program, out, url, n = sys.argv[1:]
    print(json.dumps({"ours": _ours, "bare": _bare}[program](out, url, int(n))))
