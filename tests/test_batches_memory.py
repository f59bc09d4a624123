"""Files of batches pass through in pieces: a hundred megabytes of them cost no memory to speak of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import BatchServer, End
from chain import make_run, rows_of
from command import python
from servers import chat

pytestmark = pytest.mark.usefixtures("clean_environment")

MEGABYTES = 100

MEASURED = """
import asyncio, resource, sys
from pathlib import Path
from excot.builders import batch_rounds
from excot.builders.generations import generate
from excot.config import GenerateConfig
from excot.llm.batch import OpenAIBatch

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # MB

async def pass_through(name, size, file):
    path = Path(name)
    with open(path, "wb") as out:
        for _ in range(size):
            out.write(b'{"custom_id": 1}' * 65536)
    backend = OpenAIBatch("tiny")
    await backend.upload(path, "excot-large.jsonl")
    path.unlink()
    await backend.download(file, path)
    await backend.close()
    return path.stat().st_size

batch_rounds.FIRST_PAUSE = batch_rounds.LONGEST_PAUSE = 0.01
folder, small, large, megabytes, *runs = sys.argv[1:]
asyncio.run(pass_through(f"{folder}/few.jsonl", 1, small))
generate(GenerateConfig(out=runs[0], backend="openai-batch", model="tiny", n=1))
before = peak()
size = asyncio.run(pass_through(f"{folder}/many.jsonl", int(megabytes), large))
generate(GenerateConfig(out=runs[1], backend="openai-batch", model="tiny", n=1))
print(peak() - before, size)
"""


def test_large_files_go_up_and_come_down_in_pieces(tmp_path: Path) -> None:
    small, large = make_run(tmp_path / "small", 20), make_run(tmp_path / "large", 20)
    answer = "SELECT 1 -- " + "x" * 20_000

    def pieces(size: int = MEGABYTES) -> Iterator[bytes]:
        for _ in range(size):
            yield b"{}\n" * 349_525

    def many_times(output: list[bytes], errors: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        return [b"".join(output) * (MEGABYTES * 1_000_000 // (20 * len(output[0])))], errors

    with BatchServer(chat(answer), ends=[End(), End(edit=many_times)]) as server:
        files = server.add_file("small", b"{}\n"), server.add_file("large", pieces)
        process = python(MEASURED, tmp_path, *files, MEGABYTES, small, large, environment=server.environment)
        out, err = process.communicate(timeout=120)
        results = [row["content"] for row in server.files.values() if row["purpose"] == "batch_output"]
    assert process.returncode == 0, err
    grown, size = map(int, out.split())
    assert size == MEGABYTES * 3 * 349_525
    assert len(results[1]) > 0.9 * MEGABYTES * 1_000_000
    assert rows_of(large, "generations")[3]["candidates"][0]["text"] == answer
    assert "lines of its results answer no request" in err
    assert grown < 40, f"{grown} MB more for files of {MEGABYTES} MB: {json.dumps(out)}"
