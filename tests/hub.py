"""A real HTTP server for tests: a small Hugging Face Hub on 127.0.0.1, with its repos in memory (`hub_store`).

    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path)  # this process; another one takes hub.environment(tmp_path)
        dataset.push_to_hub("tester/birds")
        assert "README.md" in hub.repos["dataset", "tester/birds"].files()

It answers for models, datasets and spaces as the Hub does without Xet. Its one user ``tester`` owns the namespaces
``tester`` and ``team``; ``token`` may write there, ``read_token`` only read.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import yaml
from hub_store import Commit, File, Repo, UnknownRevision, is_lfs

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
WRITES = r"^(PUT|DELETE) |^POST .*/(repos/create$|commit/|branch/|tag/)"
FOREVER = sys.maxsize


@dataclass
class Reply:
    """One HTTP answer: ``body`` goes out as JSON unless it is bytes; without a status the connection breaks."""

    body: Any = None
    status: int | None = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error answer, in the headers and the body that the clients look into."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] = {}, **fields: Any):
        named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply({"error": message, **fields}, status, named | headers)


@dataclass(frozen=True)
class Request:
    """What the server saw; as text it is the method and the path, without the query."""

    method: str
    path: str
    segments: list[str]  # a slash inside of one came encoded, as in refs%2Fpr%2F1
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def json(self) -> Any:
        return json.loads(self.body or "{}")


@dataclass
class Fault:
    """A failure to come: of the requests that match, let ``skip`` pass and give ``reply`` to ``times``."""

    pattern: str
    reply: Reply
    times: int
    skip: int


class HubServer:
    """A context manager around a threading HTTP server on a free port.

    Attributes:
        repos: every repo by its type (``model``, ``dataset``, ``space``) and id.
        requests: all that arrived, in order, also what was failed or broken off.
        unknown: the requests, as text, that it has no answer for but 404.
        watch: called with each request before it is answered; may change ``repos``. What it raises ends the test, as
            a mistake of the server does.
    """

    user = "tester"
    namespaces = ("tester", "team")
    token = "hf_mayWriteToTheHub"
    read_token = "hf_mayReadFromTheHub"

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.watch: Callable[[Request], None] = lambda request: None
        self.connections: list[socket.socket] = []
        self._faults: list[Fault] = []
        self._bytes_left = FOREVER
        self._mistakes: list[Exception] = []
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self.connections:  # a client that keeps one would still be answered
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._mistakes:
            raise self._mistakes[0]

    def put(
        self, kind: str, repo_id: str, files: Mapping[str, bytes | str], branch: str = "main", private: bool = False
    ) -> Commit:
        """Commit files as somebody else would, past the network; a missing repo or branch is made."""
        with self._lock:
            repo = self.repos.setdefault((kind, repo_id), Repo(kind, repo_id, private, "static"))
            contents = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
            added = {path: File(data, is_lfs(path, data, len(data))) for path, data in contents.items()}
            parent = repo.branches.get(branch, repo.branches["main"])
            return repo.record(branch, {**parent.files, **added}, "Add files", parent=parent)

    def seen(self, pattern: str = "") -> list[str]:
        """The requests so far that match, as text: ``POST /api/datasets/team/birds/commit/main``."""
        return [str(request) for request in self.requests if re.search(pattern, str(request))]

    @property
    def writes(self) -> list[str]:
        """The requests so far that change something at the Hub, or meant to."""
        return self.seen(WRITES)

    def fail_next(
        self, pattern: str, status: int | None = 500, times: int = 1, skip: int = 0, headers: Mapping[str, str] = {}
    ) -> None:
        """Fail requests whose text matches; without a status by breaking the connection.

        The clients repeat most requests for up to half a minute when they see 408, 429, 5xx or a broken connection
        (``online`` takes the waiting away), never a commit or a creation. With 403 they stop at once.
        """
        self._faults.append(Fault(pattern, Reply({"error": "As asked for"}, status, dict(headers)), times, skip))

    def drop_after(self, requests: int = FOREVER, n_bytes: int = FOREVER) -> None:
        """Break all connections after so many more requests, or bytes in their bodies, until ``mend``."""
        self.fail_next("", None, FOREVER, requests)
        self._bytes_left = n_bytes

    def mend(self) -> None:
        """Take back all failures to come."""
        self._faults, self._bytes_left = [], FOREVER

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
        for name, value in {
            "huggingface_hub.constants.ENDPOINT": self.url,
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": template,
            "huggingface_hub.constants.HF_HUB_CACHE": str(home / "hub"),
            "huggingface_hub.constants.HF_TOKEN_PATH": str(home / "token"),
            "huggingface_hub.constants.HF_HUB_OFFLINE": False,
            "huggingface_hub.constants.HF_HUB_DISABLE_XET": True,
            "huggingface_hub.hf_api.api.endpoint": self.url,
            "huggingface_hub.utils._http.time": SimpleNamespace(sleep=lambda seconds: None),
            "datasets.config.HF_ENDPOINT": self.url,
            "datasets.config.HF_HUB_OFFLINE": False,
            "datasets.config.HF_DATASETS_CACHE": home / "datasets",
            "datasets.config.USE_PARQUET_EXPORT": False,  # a server beside the Hub, which has none
        }.items():
            monkeypatch.setattr(name, value)
        if "transformers.utils.hub" in sys.modules:
            monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # a client kept since its first use
        sys.modules["huggingface_hub"].HfFileSystem.clear_instance_cache()

    def answer(self, request: Request) -> Reply:
        """The answer to one request, or the failure that was asked for."""
        try:
            with self._lock:
                self.requests.append(request)
                failure = self._failure(str(request))
            self.watch(request)
            with self._lock:
                return failure or _Answers(self, request).find()
        except Refusal as refusal:
            return refusal.reply
        except UnknownRevision as unknown:
            return Refusal(404, str(unknown), "RevisionNotFound").reply
        except Exception as mistake:
            self._mistakes.append(mistake)
            return Reply({"error": f"The stand-in for the Hub failed: {mistake!r}"}, 501)

    def lives_through(self, n_bytes: int) -> bool:
        """Count bytes received; false from where ``drop_after`` breaks off."""
        with self._lock:
            self._bytes_left -= n_bytes
            return self._bytes_left >= 0

    def _failure(self, request: str) -> Reply | None:
        if self._bytes_left < 0:
            return Reply(status=None)
        for fault in self._faults:
            if fault.times and re.search(fault.pattern, request):
                if not fault.skip:
                    fault.times -= 1
                    return fault.reply
                fault.skip -= 1
        return None


class _Answers:
    """What the Hub says to one request; an action on a repo is named after the method and the word in the path."""

    def __init__(self, hub: HubServer, request: Request):
        self.hub, self.request = hub, request
        self.token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.token not in ("", hub.token, hub.read_token):
            raise Refusal(401, "Invalid credentials in Authorization header")

    def find(self) -> Reply:
        """Find who answers this path."""
        match [self.request.method, *self.request.segments]:
            case ["GET", "api", "whoami-v2"]:
                return self.whoami()
            case ["POST", "api", "repos", "create"]:
                return self.create()
            case ["POST", "api", "validate-yaml"]:
                return self.validate_yaml()
            case ["PUT", "lfs", kind, owner, name, oid]:
                return self.put_lfs(self.hub.repos[kind, f"{owner}/{name}"], oid)
            case ["GET", "api", kinds, name] if kinds in KINDS:
                return self.act(KINDS[kinds], name, [])  # a name alone; no repo here has one
            case [_, "api", kinds, owner, name, *rest] if kinds in KINDS:
                return self.act(KINDS[kinds], f"{owner}/{name}", rest)
            case [_, ("datasets" | "spaces") as kinds, owner, name, *rest]:
                return self.act(KINDS[kinds], f"{owner}/{name}", rest)
            case [_, owner, name, *rest]:
                return self.act("model", f"{owner}/{name}", rest)
        raise self.no_such_page()

    def act(self, kind: str, repo_id: str, rest: list[str]) -> Reply:
        """Find the action on a repo, see that it is allowed, and do it."""
        method = "get" if self.request.method == "HEAD" else self.request.method.lower()
        verb, *rest = rest or ["revision"]
        action = getattr(self, f"{method}_{verb.replace('-', '_')}", None)
        if action is None:
            raise self.no_such_page()
        repo = self.readable(kind, repo_id.removesuffix(".git"))
        if method != "get" and verb != "paths-info":
            self.see_that_one_may_write(repo.id)
        parts = 3 if rest[:1] == ["refs"] else 1  # refs/pr/1 may come with its slashes encoded, or not
        return action(repo, "/".join(rest[:parts]) or "main", "/".join(rest[parts:]))

    def no_such_page(self) -> Refusal:
        self.hub.unknown.append(str(self.request))
        return Refusal(404, "Sorry, we can't find the page you are looking for.")

    def readable(self, kind: str, repo_id: str) -> Repo:
        """The repo; one that may not be read looks as if it were not there."""
        repo = self.hub.repos.get((kind, repo_id))
        ours = self.token and repo_id.split("/")[0] in self.hub.namespaces
        if repo is None or (repo.private and not ours):
            # by the code the clients know what a 401 means, other than at the address of the real Hub
            raise Refusal(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return repo

    def see_that_one_may_write(self, repo_id: str) -> None:
        namespace = repo_id.split("/")[0]
        if not self.token:
            raise Refusal(401, "Invalid username or password.")
        if self.token != self.hub.token or namespace not in self.hub.namespaces:
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def whoami(self) -> Reply:
        if not self.token:
            raise Refusal(401, "Invalid username or password.")
        role = "write" if self.token == self.hub.token else "read"
        orgs = [{"type": "org", "name": name} for name in self.hub.namespaces if name != self.hub.user]
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
        return Reply({"type": "user", "name": self.hub.user, "orgs": orgs, "auth": auth})

    def create(self) -> Reply:
        wanted = self.request.json
        kind, owner = wanted.get("type") or "model", wanted.get("organization") or self.hub.user
        repo = Repo(kind, f"{owner}/{wanted['name']}", wanted.get("visibility") == "private", wanted.get("sdk"))
        self.see_that_one_may_write(repo.id)
        url = f"{self.hub.url}/{repo.path}"
        if (kind, repo.id) in self.hub.repos:
            raise Refusal(409, f"You already created this {kind} repo", url=url)
        self.hub.repos[kind, repo.id] = repo
        return Reply({"url": url, "name": repo.id})

    def validate_yaml(self) -> Reply:
        metadata, complaint = _front_matter(self.request.json["content"])
        if complaint:
            return Reply({"errors": [{"message": complaint}], "warnings": []}, 400)
        missing = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        return Reply({"errors": [], "warnings": missing})

    def put_lfs(self, repo: Repo, oid: str) -> Reply:
        """Take what a batch announced; to have been given the address is permission enough."""
        if hashlib.sha256(self.request.body).hexdigest() != oid:
            raise Refusal(400, "The content does not match its checksum")
        repo.lfs[oid] = self.request.body
        return Reply()

    def post_info(self, repo: Repo, *_: str) -> Reply:
        """The LFS batch: where to upload each object that is not there yet."""

        def instruction(wanted: dict[str, Any]) -> dict[str, Any]:
            href = f"{self.hub.url}/lfs/{repo.kind}/{repo.id}/{wanted['oid']}"
            return wanted if wanted["oid"] in repo.lfs else {**wanted, "actions": {"upload": {"href": href}}}

        return Reply({"transfer": "basic", "objects": list(map(instruction, self.request.json["objects"]))})

    def get_revision(self, repo: Repo, revision: str, _: str) -> Reply:
        commit = repo.find(revision)
        shown = {path: file.about if "blobs" in self.request.query else {} for path, file in commit.files.items()}
        about = {"_id": repo.id, "id": repo.id, "author": repo.id.split("/")[0], "sha": commit.oid}
        about |= {"private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        about |= {"lastModified": commit.date, "cardData": _front_matter(_card(commit.files))[0], "sdk": repo.sdk}
        return Reply(about | {"siblings": [{"rfilename": path, **shown[path]} for path in sorted(shown)]})

    def get_tree(self, repo: Repo, revision: str, folder: str) -> Reply:
        start = f"{folder}/" if folder else ""
        entries = {path: entry for path, entry in _entries(repo.find(revision)).items() if path.startswith(start)}
        if folder and not entries:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        everything = self.request.query.get("recursive") == "true"
        return Reply([entry for path, entry in entries.items() if everything or "/" not in path[len(start) :]])

    def post_paths_info(self, repo: Repo, revision: str, _: str) -> Reply:
        entries, wanted = _entries(repo.find(revision)), parse_qs(self.request.body.decode()).get("paths", [])
        return Reply([entries[path] for path in wanted if path in entries])

    def get_refs(self, repo: Repo, *_: str) -> Reply:
        def listed(refs: Mapping[str, Commit], prefix: str = "") -> list[dict[str, str]]:
            return [{"name": name, "ref": prefix + name, "targetCommit": commit.oid} for name, commit in refs.items()]

        refs = {"branches": listed(repo.branches, "refs/heads/"), "tags": listed(repo.tags, "refs/tags/")}
        return Reply(refs | {"converts": [], "pullRequests": listed(repo.pull_requests)})

    def get_commits(self, repo: Repo, revision: str, _: str) -> Reply:
        """The commits that led here, the newest first."""
        history, commit = [], repo.find(revision)
        while commit is not None:
            about = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
            history.append(about | {"authors": [{"user": self.hub.user}]})
            commit = commit.parent
        return Reply(history)

    def post_preupload(self, repo: Repo, revision: str, _: str) -> Reply:
        """Say of each file how it shall come, and what lies in its place, so that nothing is sent twice."""
        present = repo.find(revision).files

        def decision(file: dict[str, Any]) -> dict[str, Any]:
            lfs = is_lfs(file["path"], base64.b64decode(file["sample"]), file["size"])
            oid = present[file["path"]].etag if file["path"] in present else None
            return {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}

        return Reply({"files": list(map(decision, self.request.json["files"]))})

    def post_commit(self, repo: Repo, revision: str, _: str) -> Reply:
        """Make a commit on a branch or pull request, or with ``create_pr`` on a new pull request beside it."""
        header, *operations = map(json.loads, self.request.body.splitlines())
        about, opens = header["value"], self.request.query.get("create_pr") == "1"
        head = (repo.branches | repo.pull_requests).get(revision)
        if head is None:
            raise UnknownRevision(revision)
        parent = repo.find(about["parentCommit"]) if "parentCommit" in about else head
        if parent is not head and not opens:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        number = len(repo.pull_requests) + 1
        files = self.changed(repo, parent.files, operations)
        ref = f"refs/pr/{number}" if opens else revision
        made = repo.record(ref, files, about["summary"], about.get("description", ""), parent)
        url = f"{self.hub.url}/{repo.path}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}"}
        return Reply(answer | ({"pullRequestUrl": f"{url}/discussions/{number}"} if opens else {}))

    @staticmethod
    def changed(repo: Repo, before: Mapping[str, File], operations: Iterable[dict[str, Any]]) -> dict[str, File]:
        """The files after the operations of a commit."""
        files = dict(before)
        for key, value in ((operation["key"], operation["value"]) for operation in operations):
            path = value["path"].rstrip("/")
            if key == "file":
                files[path] = File(base64.b64decode(value["content"]))
            elif key == "lfsFile" and value["oid"] in repo.lfs:
                files[path] = File(repo.lfs[value["oid"]], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                gone = [p for p in files if (p == path if key == "deletedFile" else p.startswith(f"{path}/"))]
                if not gone:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                files = {p: file for p, file in files.items() if p not in gone}
            else:
                raise Refusal(400, f"Not an operation, or its content was never uploaded: {key} of {path}")
        if complaint := _front_matter(_card(files))[1]:
            raise Refusal(400, f"Invalid metadata in README.md. {complaint}")
        return files

    def post_branch(self, repo: Repo, branch: str, _: str) -> Reply:
        return self.create_ref(repo, repo.branches, branch, self.request.json.get("startingPoint", "main"))

    def post_tag(self, repo: Repo, revision: str, _: str) -> Reply:
        return self.create_ref(repo, repo.tags, self.request.json["tag"], revision)

    @staticmethod
    def create_ref(repo: Repo, refs: dict[str, Commit], name: str, revision: str) -> Reply:
        if name.startswith("refs/"):
            raise Refusal(400, f"Invalid reference name: {name}")
        if name in refs:
            raise Refusal(409, f"{name} exists already")
        refs[name] = repo.find(revision)
        return Reply()

    def delete_tag(self, repo: Repo, tag: str, _: str) -> Reply:
        if repo.tags.pop(tag, None) is None:
            raise UnknownRevision(tag)
        return Reply()

    def get_resolve(self, repo: Repo, revision: str, path: str) -> Reply:
        """A file, or the part of it that was asked for."""
        commit = repo.find(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", headers)  # with the commit the clients remember it
        file = commit.files[path]
        headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        return _part(file.content, self.request.headers.get("range", ""), headers)


def _card(files: Mapping[str, File]) -> str:
    return files["README.md"].content.decode(errors="replace") if "README.md" in files else ""


def _front_matter(card: str) -> tuple[dict[str, Any], str]:
    """The metadata at the head of a card, and what the Hub has against it."""
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card, re.DOTALL)
    try:
        metadata = yaml.safe_load(block[1]) if block else None
    except yaml.YAMLError as error:
        return {}, f"Bad YAML: {error}"
    return (metadata or {}, "") if isinstance(metadata, dict | None) else ({}, "The metadata must be a mapping")


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Every file and folder of a commit as a listing shows it, by its path."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        for folder in map(str, reversed(PurePosixPath(path).parents[:-1])):
            oid = hashlib.sha1(f"{commit.oid} {folder}".encode()).hexdigest()
            entries.setdefault(folder, {"type": "directory", "path": folder, "size": 0, "oid": oid})
        entries[path] = {"type": "file", "path": path, **file.about}
    return entries


def _part(content: bytes, wanted: str, headers: dict[str, str]) -> Reply:
    """The bytes that a ``Range`` header asks for; all of them without one."""
    size, asked = len(content), re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", wanted)
    if not asked:
        return Reply(content, 200, headers)
    start = max(size - int(asked[3]), 0) if asked[3] else int(asked[1])
    stop = min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= stop:
        return Reply(b"", 416, {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(content[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of several tests


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body leave in one packet; otherwise Nagle's algorithm costs 40 ms a request

        def setup(self) -> None:
            hub.connections.append(self.request)
            super().setup()

        def respond(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.received(int(headers.get("content-length", 0)))
            target = urlsplit(self.path)
            segments = [unquote(part) for part in target.path.strip("/").split("/")]
            query = dict(parse_qsl(target.query))
            reply = hub.answer(Request(self.command, unquote(target.path), segments, query, headers, body))
            if reply.status is None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            else:
                self.send(reply, reply.status)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

        def received(self, size: int) -> bytes:
            """The body, or as much of it as comes before the connection shall break."""
            body = b""
            while len(body) < size and (part := self.rfile.read1(min(size - len(body), 2**16))):
                body += part
                if not hub.lives_through(len(part)):
                    break
            return body

        def send(self, reply: Reply, status: int) -> None:
            plain = isinstance(reply.body, bytes)
            body = reply.body if plain else json.dumps(reply.body, default=str).encode()
            kind = "application/octet-stream" if plain else "application/json"
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value.replace("\n", " "))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
