"""The tests' Hub: what can go wrong on the way, and that its clients get over it or stop."""

from __future__ import annotations

import socket
import time

import pytest
from committed import BIRDS, BROKEN, LARGE, QUIET, add, added, commit, refused
from hub import FOREVER
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

pytestmark = QUIET


def test_a_passing_failure_is_got_over(hub, api):
    hub.fail_next("/preupload/", 503, times=2)
    hub.fail_next("^PUT ", None)
    hub.fail_next("objects/batch", 429, headers={"Retry-After": "60"})
    commit(api, add("a.parquet", LARGE))
    assert added(hub) == {"a.parquet": LARGE}
    assert [len(hub.seen(pattern)) for pattern in ("/preupload/", "^PUT ", "objects/batch")] == [3, 2, 2]


@pytest.mark.parametrize("status", [500, 403, None])
def test_a_failed_commit_leaves_the_branch_as_it_was(hub, api, status):
    commit(api, add("a.txt", "1"))
    hub.fail_next("/commit/", status)
    with pytest.raises(BROKEN if status is None else HfHubHTTPError):
        commit(api, add("a.parquet", LARGE), add("a.txt", "2"))
    assert added(hub) == {"a.txt": b"1"}
    commit(api, add("a.parquet", LARGE), add("a.txt", "2"))
    assert added(hub) == {"a.txt": b"2", "a.parquet": LARGE}
    assert len(hub.seen("^PUT ")) == 1  # what the first attempt had uploaded still counts


def test_a_failure_waits_for_its_turn(hub, api):
    hub.fail_next("/commit/", 403, skip=1)
    commit(api, add("a.txt", "1"))
    with refused(status=403):
        commit(api, add("a.txt", "2"))
    commit(api, add("a.txt", "3"))
    assert added(hub) == {"a.txt": b"3"}


def test_the_line_breaks_off_midway(hub, api):
    """Somewhere in the requests of two commits; whatever was said done is done, and the rest can be made up."""

    def two_commits(name: str) -> None:
        commit(api, add(f"one/{name}", name), add("one.txt", name))
        commit(api, add(f"two/{name}", name[::-1]), add("two.txt", name))

    for requests in range(8):  # each commit is four of them
        before, name = added(hub), f"{requests}.parquet"
        hub.drop_after(requests)
        with pytest.raises((*BROKEN, RuntimeError)):
            two_commits(name)
        first = {f"one/{name}": name.encode(), "one.txt": name.encode()}
        assert added(hub) == {**before, **(first if requests >= 4 else {})}
        hub.mend()
        two_commits(name)
        assert added(hub) == {**before, **first, f"two/{name}": name[::-1].encode(), "two.txt": name.encode()}


def test_the_line_breaks_off_within_a_file(hub, api):
    hub.drop_after(n_bytes=len(LARGE) // 2)
    with pytest.raises(RuntimeError, match="Error while uploading") as raised:
        commit(api, add("a.parquet", LARGE))
    assert isinstance(raised.value.__cause__, BROKEN)
    upload = next(request for request in hub.requests if request.method == "PUT")
    assert 0 < len(upload.body) < len(LARGE)
    assert hub.repos["dataset", BIRDS].lfs == {} and hub.seen("/commit/") == []
    hub.mend()
    commit(api, add("a.parquet", LARGE))
    assert added(hub) == {"a.parquet": LARGE}


def test_a_client_waits_as_long_as_it_is_told(hub, api):
    hub.fail_next("/preupload/", 429, retry_after=55)
    hub.fail_next("objects/batch", 503, times=2, retry_after=7)
    commit(api, add("a.parquet", LARGE))
    assert added(hub) == {"a.parquet": LARGE}
    assert hub.pauses == [56, 8, 8]
    hub.fail_next("/preupload/", 429, times=FOREVER, retry_after=55)
    with pytest.raises(HfHubHTTPError, match="your 'api' rate limit.\nRetry after 55 seconds .0/500 requests"):
        commit(api, add("a.parquet", "2"))
    hub.mend()
    hub.fail_next("/commit/", 429, retry_after=55)
    with refused(status=429):  # a commit is not repeated
        commit(api, add("a.parquet", "2"))
    assert added(hub) == {"a.parquet": LARGE}


def test_half_a_request_has_no_answer(hub, api):
    with socket.create_connection(hub.url.removeprefix("http://").split(":")) as line:
        line.sendall(f"POST /api/datasets/{BIRDS}/commit/main HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{".encode())
    deadline = time.monotonic() + 10
    while not hub.seen("/commit/") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not hub.requests[-1].whole and added(hub) == {}
    assert HfApi().whoami()["name"] == "tester"
