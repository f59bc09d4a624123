"""The tests' Hub: what goes over the wire, in parts, in bulk and slowly."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from committed import BIRDS, BROKEN, LARGE, QUIET, add, added, commit, refused, send
from httpx2 import ReadTimeout
from hub import HubServer
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import BadRequestError
from huggingface_hub.utils import get_session

pytestmark = QUIET


def test_a_file_comes_with_its_headers_and_in_parts(hub):
    commit = hub.put("dataset", BIRDS, {"a.txt": "0123456789", "a.parquet": LARGE})

    def get(name: str, part: str = "", method: str = "GET") -> Any:
        headers = {"range": part} if part else {}
        return get_session().request(method, f"{hub.url}/datasets/{BIRDS}/resolve/main/{name}", headers=headers)

    small, large = get("a.txt", method="HEAD"), get("a.parquet", method="HEAD")
    assert {reply.headers["x-repo-commit"] for reply in (small, large)} == {commit.oid}
    assert (small.content, small.headers["content-length"]) == (b"", "10")
    assert small.headers["etag"] == '"ad471007bd7f5983d273b9584e5629230150fd54"'  # git hash-object
    assert large.headers["x-linked-etag"] == large.headers["etag"] and len(large.headers["etag"]) == 66
    assert large.headers["x-linked-size"] == str(len(LARGE)) and "x-linked-size" not in small.headers

    parts = {"bytes=2-4": b"234", "bytes=7-": b"789", "bytes=-2": b"89", "bytes=8-99": b"89"}
    for part, expected in parts.items():
        reply = get("a.txt", part)
        assert (reply.status_code, reply.content) == (206, expected)
        start = 10 - len(expected) if expected != b"234" else 2
        assert reply.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/10"
    assert (get("a.txt", "bytes=10-").status_code, get("a.txt").content) == (416, b"0123456789")
    missing = get("none")
    assert (missing.headers["x-error-code"], missing.headers["x-repo-commit"]) == ("EntryNotFound", commit.oid)
    assert HfFileSystem().read_bytes(f"datasets/{BIRDS}/a.parquet", start=10, end=1000) == LARGE[10:1000]


# Large contents


@pytest.fixture
def folder(hub, api, tmp_path) -> Path:
    """Where the Hub keeps large contents."""
    hub.folder = tmp_path / "large"
    return hub.folder


def test_a_large_content_goes_through_no_memory(hub, api, folder, tmp_path, monkeypatch):
    """Client and server are in this process: together they hold a small part of the file at a time."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**20)
    size, source = 50 * 2**20, tmp_path / "source"
    with source.open("wb") as file:
        for _ in range(50):
            file.write(os.urandom(2**20))
    tracemalloc.start()
    try:
        api.upload_file(path_or_fileobj=source, path_in_repo="w.bin", repo_id=BIRDS, repo_type="dataset")
        fetched = Path(api.hf_hub_download(BIRDS, "w.bin", repo_type="dataset"))
        assert tracemalloc.get_traced_memory()[1] < size / 5
    finally:
        tracemalloc.stop()
    content = source.read_bytes()
    assert fetched.read_bytes() == content and added(hub) == {"w.bin": content}
    file = hub.repos["dataset", BIRDS].branches["main"].files["w.bin"]
    assert [*folder.iterdir()] == [folder / file.etag]
    assert api.verify_repo_checksums(BIRDS, repo_type="dataset").mismatches == []
    assert HfFileSystem().read_bytes(f"datasets/{BIRDS}/w.bin", start=10**7, end=10**7 + 5) == content[10**7 :][:5]


def test_the_same_large_content_is_kept_once_and_a_small_one_in_memory(hub, api, folder):
    hub.on_disk_from = len(LARGE)
    api.create_repo("team/nest")
    commit(api, add("a.bin", LARGE), add("c.bin", LARGE[1:]))
    commit(api, add("b.bin", LARGE))
    commit(api, add("a.bin", LARGE), repo="team/nest", kind="model")
    assert len(hub.seen("^PUT ")) == 3 and len([*folder.iterdir()]) == 1
    assert added(hub) == {"a.bin": LARGE, "b.bin": LARGE, "c.bin": LARGE[1:]}
    assert added(hub, kind="model", repo="team/nest") == {"a.bin": LARGE}


def test_of_what_did_not_come_whole_nothing_is_kept(hub, api, folder):
    hub.on_disk_from = 1
    hub.drop_after(n_bytes=len(LARGE) // 2)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        commit(api, add("a.bin", LARGE))
    hub.mend()
    with refused(BadRequestError):
        send(hub, f"/lfs/dataset/{BIRDS}/{'0' * 64}", "something else", "PUT")
    hub.fail_next("^PUT ", 403)
    with pytest.raises(RuntimeError, match="Error while uploading"):
        commit(api, add("a.bin", LARGE))
    assert [*folder.iterdir()] == [] and hub.repos["dataset", BIRDS].lfs == {}
    commit(api, add("a.bin", LARGE))
    assert added(hub) == {"a.bin": LARGE}


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_download_that_breaks_off_goes_on_where_it_was(hub, api, folder, on_disk, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # what lies in half a one is lost
    hub.on_disk_from = 1 if on_disk else 2**30
    commit(api, add("a.bin", LARGE))
    hub.cut_next("^GET .*/a.bin", 100_000)
    hub.cut_next("^GET .*/a.bin", 50_000, skip=1)
    assert Path(api.hf_hub_download(BIRDS, "a.bin", repo_type="dataset")).read_bytes() == LARGE
    parts = [request.headers.get("range") for request in hub.requests if str(request).startswith("GET")][-3:]
    assert parts == [None, "bytes=100000-", "bytes=150000-"]
    assert folder.exists() == on_disk


# A slow line


def seconds(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def test_an_answer_comes_late_as_often_as_it_shall(hub, api):
    hub.slow("whoami", 0.3, times=1, skip=1)
    first, second, third = (seconds(api.whoami) for _ in range(3))
    assert second >= 0.3 > max(first, third)
    hub.slow("whoami", 60)
    hub.mend()
    assert seconds(api.whoami) < 5


def test_a_client_that_waited_too_long_asks_again(hub, api, monkeypatch):
    commit(api, add("a.bin", LARGE))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.slow("^GET .*/a.bin", 60, times=1)
    assert Path(api.hf_hub_download(BIRDS, "a.bin", repo_type="dataset")).read_bytes() == LARGE
    assert len(hub.seen("^GET .*/a.bin")) == 2


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_body_trickles_and_comes_whole(hub, api, folder, on_disk):
    hub.on_disk_from = 1 if on_disk else 2**30
    commit(api, add("a.bin", LARGE))
    hub.slow("^GET .*/a.bin", rate=2 * len(LARGE))
    assert seconds(lambda: api.hf_hub_download(BIRDS, "a.bin", repo_type="dataset")) >= 0.4
    assert HfFileSystem().read_bytes(f"datasets/{BIRDS}/a.bin") == LARGE


def test_what_is_answered_late_was_done_at_once(hub, api):
    hub.slow("/tag/", 60)
    with pytest.raises(ReadTimeout):
        get_session().post(
            f"{hub.url}/api/datasets/{BIRDS}/tag/main",
            json={"tag": "v1"},
            headers={"authorization": f"Bearer {hub.token}"},
            timeout=0.2,
        )
    assert "v1" in hub.repos["dataset", BIRDS].tags


@pytest.mark.parametrize("slowness", [{"seconds": 60}, {"rate": 1}], ids=["late", "trickling"])
def test_a_slow_server_ends_at_once(monkeypatch, tmp_path, slowness):
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            HfApi().whoami()
        except BROKEN as error:
            ended.append(error)

    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path)
        hub.slow("whoami", **slowness)
        client = threading.Thread(target=ask)
        client.start()
        while not hub.seen("whoami"):
            time.sleep(0.01)
    client.join(5)
    assert not client.is_alive() and len(ended) == 1
