"""The search for planted secrets: it finds each wherever it may be, fails the session, and shows none."""

from __future__ import annotations

import base64
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import planted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import Finished, python
from hub import HubServer
from huggingface_hub import HfApi, get_token
from huggingface_hub.utils import get_session

KEY = planted.OPENAI_KEY
TESTS = Path(__file__).resolve().parent
SECRETS = [value for name, value in vars(planted).items() if name.endswith(("_TOKEN", "_KEY")) or name == "PASSWORD"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder where this session's own search does not look."""
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.mark.parametrize("number", range(len(SECRETS)))
def test_a_secret_is_known_whole_in_half_and_in_base64(number):
    secret = SECRETS[number]
    assert len(SECRETS) == len({*SECRETS}) == 6
    half = len(secret) // 2
    for text in (secret, secret[:half], secret[half:], f"x{secret}x"):
        assert planted.holds(text) and planted.holds(text.encode())
        assert planted.MARK not in planted.hidden(text)
    for user in ("", "a", "me", "you"):
        sent = base64.b64encode(f"{user}:{secret}".encode()).decode()
        assert planted.holds(sent) and not planted.holds(planted.hidden(sent))
    assert not planted.holds(secret.replace(planted.MARK, ""))


def test_a_file_is_searched_also_in_what_is_compressed_in_it(folder):
    rows = [{"candidates": [{"text": f"SELECT '{planted.OPENAI_KEY}'"}]}]
    table = pa.table({"candidates": [row["candidates"] for row in rows]})
    text = f"a line\nkey: {planted.AZURE_KEY}\n".encode()
    for name in ("plain.txt", "deep/er/plain", "packed.jsonl.gz", "broken.gz", "broken.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(text) if name.startswith("packed") else text)
    for codec in ("zstd", "snappy", "none"):
        pq.write_table(table, folder / f"{codec}.parquet", compression=codec)
    pq.write_table(table.slice(0, 0), folder / "empty.parquet")
    (folder / f"{planted.HUB_TOKEN}.txt").write_text("named")
    (folder / "innocent.txt").write_text("sk-something hf_something")
    (folder / "link").symlink_to(folder / "plain.txt")
    found = planted.files_with_secrets(folder)
    assert {*found} == {
        "plain.txt",
        "deep/er/plain",
        "packed.jsonl.gz",
        "broken.gz",
        "broken.parquet",
        "zstd.parquet",
        "snappy.parquet",
        "none.parquet",
        f"{planted.HUB_TOKEN}.txt",
    }


def test_of_a_large_file_the_beginning_is_searched(folder, monkeypatch):
    monkeypatch.setattr(planted, "LARGEST", 1000)
    (folder / "early").write_bytes(planted.HUB_TOKEN.encode() + bytes(10_000))
    (folder / "late").write_bytes(bytes(10_000) + planted.HUB_TOKEN.encode())
    assert planted.files_with_secrets(folder) == ["early"]


def test_only_who_logged_in_keeps_a_token(hub, monkeypatch, folder):
    hub.online(monkeypatch, folder / "home", token="")
    path = planted.log_in(folder / "home")
    assert get_token() == hub.token and HfApi().whoami()["name"] == "tester"
    path.with_name("another").write_text(hub.token)
    assert planted.files_with_secrets(folder) == ["home/another"]


def birds(hub: HubServer, *commits: dict[str, str | bytes]) -> None:
    for files in commits:
        hub.put("dataset", "team/birds", files)


def parquet(text: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"sql": [text]}), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("leak", "found"),
    [
        (lambda hub: birds(hub, {"notes.txt": f"I am {KEY}"}), "notes.txt of the dataset team/birds"),
        (lambda hub: birds(hub, {"a.parquet": parquet(KEY)}), "a.parquet of the dataset team/birds"),
        (lambda hub: birds(hub, {"a.txt": KEY}, {"a.txt": "gone"}), "a.txt of the dataset team/birds"),
        (lambda hub: birds(hub, {f"{KEY}.txt": "named"}), "a commit to the dataset team/birds"),
        (lambda hub: hub.repos["model", "team/owl"].record("main", {}, f"By {KEY}"), "a commit to the model team/owl"),
        (lambda hub: hub.repos["model", "team/owl"].lfs.update({"0": KEY.encode()}), "an uploaded 0 of the model"),
        (lambda hub: get_session().get(f"{hub.url}/?key={KEY}"), "the address of a GET request"),
    ],
    ids=["content", "rows", "earlier", "path", "message", "upload", "address"],
)
def test_what_the_hub_was_given_ends_the_test(leak, found, monkeypatch, tmp_path):
    hub = HubServer().__enter__()
    hub.online(monkeypatch, tmp_path)
    hub.put("model", "team/owl", {"README.md": "# An owl"})
    leak(hub)
    with pytest.raises(AssertionError, match=f"^a planted secret is in {found}") as raised:
        hub.__exit__()
    assert planted.MARK not in str(raised.value)


def test_what_a_command_wrote_ends_the_test():
    for out, err in ((planted.HUB_TOKEN, ""), ("", planted.HUB_TOKEN)):
        with pytest.raises(AssertionError, match="a planted secret is in what a command"):
            Finished(0, out, err)
    assert Finished(0, "fine", "") == (0, "fine", "")
    for stream in ("stdout", "stderr"):
        program = f"import os, sys; print(os.environ['OPENAI_API_KEY'], file=sys.{stream})"
        with pytest.raises(AssertionError, match="a planted secret is in what a process"):
            python(program, environment={"OPENAI_API_KEY": planted.OPENAI_KEY}).communicate()


SESSION = """
import logging, sys
import planted, pytest

def test_it_writes_a_file(tmp_path):
    (tmp_path / "leak.txt").write_text(planted.HUB_TOKEN if "file" in {places} else "none")
    planted.log_in(tmp_path / "home")

def test_it_logs():
    logging.getLogger("some").warning("with %s", planted.OPENAI_KEY if "log" in {places} else "none")

@pytest.mark.parametrize("key", [planted.AZURE_KEY])
def test_it_prints(key):
    print(key if "out" in {places} else "none", file=sys.stdout)

@pytest.fixture
def late():
    yield
    print(planted.PASSWORD if "end" in {places} else "none", file=sys.stderr)

def test_it_says_it_at_the_end(late):
    pass
"""


@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "workers"])
@pytest.mark.parametrize("places", [[], ["file", "log", "out", "end"]], ids=["clean", "leaking"])
def test_the_session_fails_and_names_the_places(places, workers, folder):
    (folder / "test_session.py").write_text(SESSION.format(places=places))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider"]
    if workers:
        pytest.importorskip("xdist")
        command += ["-n", str(workers)]
    ended = subprocess.run(
        [*command, "--rootdir", folder, "--basetemp", folder / "base", folder / "test_session.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == bool(places) and "4 passed" in ended.stdout, ended.stdout
    named = ended.stdout.partition("FAILED: a planted secret was written")[2].partition("\n")[2].splitlines()
    expected = [
        "captured log call of .*::test_it_logs",
        r"captured stdout call of .*::test_it_prints\[.*\[\.\.\.\]\]",
        "captured stderr teardown of .*::test_it_says_it_at_the_end",
        r".*/base/(popen-gw\d/)?test_it_writes_a_file0/leak\.txt",
    ]
    named.sort(key=lambda line: [bool(re.fullmatch(place, line)) for place in expected], reverse=True)
    for place, line in zip(expected if places else [], named, strict=False):
        assert re.fullmatch(place, line), ended.stdout
    assert len(named) >= len(places)
    assert not planted.holds(ended.stdout) and not planted.holds(ended.stderr)
