"""A real HTTP server for tests: a small Hugging Face Hub on 127.0.0.1, with its repos in memory.

    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path)  # this process; another one takes hub.environment(tmp_path)
        dataset.push_to_hub("tester/birds")
        assert "README.md" in hub.repos["dataset", "tester/birds"].files()

It answers for models, datasets and spaces as the Hub does without Xet. Its user ``tester`` owns the namespaces
``tester`` and ``team``; ``token`` may write there, ``read_token`` only read. ``other_token`` is a ``stranger``'s, who
reads what is public, opens pull requests there, and owns ``stranger``.

What it keeps is in `hub_store`, what it says in `hub_answers`, how that crosses the network in `hub_wire`.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import planted
from hub_answers import Account, Answers
from hub_store import Commit, File, Repo, UnknownRevision, is_lfs
from hub_wire import Refusal, Reply, Request, Server

WRITES = r"^(PUT|DELETE) |^POST .*/(repos/create$|commit/|branch/|tag/)"
FOREVER = sys.maxsize


@dataclass
class Planned:
    """Of the requests that match, let ``skip`` pass and ``change`` the reply to ``times``."""

    pattern: str
    change: Callable[[Reply], Reply]
    times: int
    skip: int

    def strikes(self, request: str) -> bool:
        if not self.times or not re.search(self.pattern, request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class HubServer:
    """A context manager around a threading HTTP server on a free port. Left, it sees that nobody gave it a secret.

    Attributes:
        folder: where uploads of at least ``on_disk_from`` bytes are kept; without one they stay in memory as well.
        page_sizes: how many entries a page of each listing has, as on the Hub.
        repos: every repo by its type (``model``, ``dataset``, ``space``) and id.
        requests: all that arrived, in order, also what was failed or broken off.
        unknown: the requests, as text, that it has no answer for but 404.
        pauses: the seconds for which the clients in this process would have waited before they tried again.
        watch: called with each request before it is answered; may change ``repos``. What it raises ends the test.
        mistakes: what went wrong in the server itself; the first one is raised when it is left.
    """

    user = "tester"
    namespaces = ("tester", "team")
    token = planted.HUB_TOKEN
    read_token = planted.HUB_READ_TOKEN
    other_token = planted.HUB_OTHER_TOKEN
    on_disk_from = 2**20

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.page_sizes = {"tree": 1000, "expanded tree": 50, "commits": 50}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.pauses: list[float] = []
        self.watch: Callable[[Request], None] = lambda request: None
        self.connections: list[socket.socket] = []
        self.mistakes: list[Exception] = []
        self.closing = threading.Event()
        self._failures: list[Planned] = []
        self._delays: list[Planned] = []
        self._bytes_left = FOREVER
        self._lock = threading.RLock()
        self._server = Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def accounts(self) -> dict[str, Account]:
        """Who each token belongs to."""
        return {
            self.token: Account(self.user, self.namespaces),
            self.read_token: Account(self.user, self.namespaces, may_write=False),
            self.other_token: Account("stranger", ("stranger",)),
        }

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self.connections:  # a client that keeps one would still be answered
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self.mistakes:
            raise self.mistakes[0]
        planted.see_none_on(self)

    def put(
        self, kind: str, repo_id: str, files: Mapping[str, bytes | str], branch: str = "main", private: bool = False
    ) -> Commit:
        """Commit files as somebody else would, past the network; a missing repo or branch is made."""
        with self._lock:
            repo = self.repos.setdefault((kind, repo_id), Repo(kind, repo_id, private, "static"))
            contents = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
            added = {path: File(data, is_lfs(path, data, len(data))) for path, data in contents.items()}
            parent = repo.branches.get(branch, repo.branches["main"])
            return repo.record(branch, {**parent.files, **added}, "Add files", parent=parent, author="somebody")

    def seen(self, pattern: str = "") -> list[str]:
        """The requests so far that match, as text: ``POST /api/datasets/team/birds/commit/main``."""
        return [str(request) for request in self.requests if re.search(pattern, str(request))]

    @property
    def writes(self) -> list[str]:
        """The requests so far that change something at the Hub, or meant to."""
        return self.seen(WRITES)

    # What can go wrong

    def fail_next(
        self,
        pattern: str,
        status: int | None = 500,
        times: int = 1,
        skip: int = 0,
        headers: Mapping[str, str] = {},
        retry_after: int | None = None,
    ) -> None:
        """Fail requests whose text matches; without a status by breaking the connection.

        The clients repeat most requests for up to half a minute when they see 408, 429, 5xx or a broken connection
        (``online`` takes the waiting away), never a commit or a creation. With 403 they stop at once.

        Args:
            retry_after: say in all the ways of the Hub that it will answer again in so many seconds.
        """
        told = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        if told and status == 429:
            told |= {"RateLimit": f'"api";r=0;t={retry_after}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
        reply = Reply({"error": "As asked for"}, status, {**told, **headers})
        self._failures.append(Planned(pattern, lambda _: reply, times, skip))

    def slow(
        self, pattern: str, seconds: float = 0.0, rate: float | None = None, times: int = FOREVER, skip: int = 0
    ) -> None:
        """Answer requests whose text matches late: what they ask for is done at once, and told after a while.

        Args:
            rate: after that, let the body trickle with so many bytes a second.
        """
        self._delays.append(Planned(pattern, lambda reply: replace(reply, pause=seconds, rate=rate), times, skip))

    def cut_next(self, pattern: str, n_bytes: int, times: int = 1, skip: int = 0) -> None:
        """Break the connection after so many bytes of the body that answers a request whose text matches."""
        self._delays.append(Planned(pattern, lambda reply: replace(reply, cut=n_bytes), times, skip))

    def drop_after(self, requests: int = FOREVER, n_bytes: int = FOREVER) -> None:
        """Break all connections after so many more requests, or bytes in their bodies, until ``mend``."""
        self.fail_next("", None, FOREVER, requests)
        self._bytes_left = n_bytes

    def mend(self) -> None:
        """Take back all failures and delays to come."""
        self._failures, self._delays, self._bytes_left = [], [], FOREVER

    # Who talks to it

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """What another process needs in its environment to use this Hub, with caches of its own.

        An empty text for a token is none at all.
        """
        on = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS")
        off = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
        # HF_HOME alone would not do where a cache has a variable of its own
        places = {"HF_HOME": "", "HF_TOKEN_PATH": "token", "HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets"}
        token = self.token if token is None else token
        settings = {"HF_ENDPOINT": self.url, "HF_TOKEN": token, "NO_PROXY": "127.0.0.1"}
        settings |= dict.fromkeys(on, "1") | dict.fromkeys(off, "0")
        return settings | {name: str(home / place) for name, place in places.items()}

    def online(self, monkeypatch: Any, home: Path, token: str | None = None) -> None:
        """Let the clients in this process use this Hub, and repeat what failed without waiting.

        They took their settings from the environment when they were imported; so the settings are replaced as well.
        """
        for name, value in self.environment(home, token).items():
            monkeypatch.setenv(name, value)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        at_once = SimpleNamespace(sleep=self.pauses.append)
        for name, value in {
            "huggingface_hub.constants.ENDPOINT": self.url,
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": template,
            "huggingface_hub.constants.HF_HUB_CACHE": str(home / "hub"),
            "huggingface_hub.constants.HF_TOKEN_PATH": str(home / "token"),
            "huggingface_hub.constants.HF_HUB_OFFLINE": False,
            "huggingface_hub.constants.HF_HUB_DISABLE_XET": True,
            "huggingface_hub.hf_api.api.endpoint": self.url,
            "huggingface_hub.utils._http.time": at_once,
            "huggingface_hub.file_download.time": at_once,
            "datasets.config.HF_ENDPOINT": self.url,
            "datasets.config.HF_HUB_OFFLINE": False,
            "datasets.config.HF_DATASETS_CACHE": home / "datasets",
            "datasets.config.USE_PARQUET_EXPORT": False,  # a server beside the Hub, which has none
        }.items():
            monkeypatch.setattr(name, value)
        if "transformers.utils.hub" in sys.modules:
            monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # a client kept since its first use
        sys.modules["huggingface_hub"].HfFileSystem.clear_instance_cache()

    # What the wire asks

    def answer(self, request: Request) -> Reply:
        """The answer to one request, with all that shall happen to it on the way."""
        with self._lock:
            self.requests.append(request)
            if not request.whole:
                return Reply(status=None)
            failure = self._failure(str(request))
            delays = [delay.change for delay in self._delays if delay.strikes(str(request))]
        reply = self._answered(request, failure)
        for change in delays:
            reply = change(reply)
        return reply

    def lives_through(self, n_bytes: int) -> bool:
        """Count bytes received; false from where ``drop_after`` breaks off."""
        with self._lock:
            self._bytes_left -= n_bytes
            return self._bytes_left >= 0

    def _failure(self, request: str) -> Reply | None:
        if self._bytes_left < 0:
            return Reply(status=None)
        return next((failure.change(Reply()) for failure in self._failures if failure.strikes(request)), None)

    def _answered(self, request: Request, failure: Reply | None) -> Reply:
        try:
            self.watch(request)
            with self._lock:
                return failure or Answers(self, request).find()
        except Refusal as refusal:
            return refusal.reply
        except UnknownRevision as unknown:
            return Refusal(404, str(unknown), "RevisionNotFound").reply
        except Exception as mistake:
            self.mistakes.append(mistake)
            return Reply({"error": f"The stand-in for the Hub failed: {mistake!r}"}, 501)
