"""A real HTTP server for tests: the files and batches endpoints of OpenAI and of Azure OpenAI on 127.0.0.1.

    with BatchServer(ends=[End("expired", answered=2)]) as server:
        OpenAIBatch("tiny", base_url=server.url)

A batch is worked off when it is made: ``server.paid`` counts the requests of all batches by custom id. How it ends,
and what its files then look like, is the script's; ``troubles`` befall requests by their number.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers import Behaviour, Reply, Request, obedient

KEY = "sk-batch-0123456789abcdef"
VERSION = "2024-10-21"

CUT_BEFORE, CUT_AFTER = "cut before", "cut after"
"""The connection breaks before the server has done what it was asked for, or when it has."""

Lines = list[bytes]


@dataclass
class End:
    """How a batch ends.

    Attributes:
        status: its last state.
        answered: how many of its requests are made, in the order of the file; all where this is ``None``.
        silent: requests that are not made are missing from the files, rather than in the error file.
        faults: why it failed: rows of ``errors.data``.
        edit: what to make of the lines of the output and the error file.
        looks: how often one must look until it has ended.
    """

    status: str = "completed"
    answered: int | None = None
    silent: bool = False
    faults: list[dict[str, Any]] = field(default_factory=list)
    edit: Callable[[Lines, Lines], tuple[Lines, Lines]] = lambda output, errors: (output, errors)
    looks: int = 2


def fault(code: str, message: str = "no", line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}


FULL = End("failed", faults=[fault("token_limit_exceeded", "Enqueued token limit reached for tiny.")], answered=0)


class BatchServer:
    """A context manager around a threading HTTP server on a free port.

    Args:
        model: answers each request of a batch, as it would answer it directly.
        ends: how the batches end, in the order of their making; those after them all complete.
        troubles: what befalls requests, by their number from 0: `CUT_BEFORE`, `CUT_AFTER`, or another reply.
        azure: whether it speaks Azure's form.
        room: requests that may be in unfinished batches together; a batch too many fails, as the services do it.
        page: rows of a page of a list at most.

    Attributes:
        requests: method and path of every request.
        files: what is kept, by id: ``{"filename", "purpose", "content", ...}``.
        batches: by id, as they are reported.
        paid: how often each custom id was worked off.
        sent: the body of each request that was worked off.
        open: whether batches come to their end.
    """

    def __init__(
        self,
        model: Behaviour = obedient,
        ends: Iterable[End] = (),
        troubles: dict[int, Any] | None = None,
        *,
        azure: bool = False,
        room: float = float("inf"),
        page: int = 100,
    ):
        self.model, self.azure, self.room, self.page = model, azure, room, page
        self.troubles = troubles or {}
        self.requests: list[tuple[str, str]] = []
        self.files: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.paid: Counter[str] = Counter()
        self.sent: list[dict[str, Any]] = []
        self.open = True
        self._ends = iter(ends)
        self._script: dict[str, End] = {}
        self._numbers = count(1)
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """What goes into ``base_url``."""
        return f"http://127.0.0.1:{self._server.server_port}{'' if self.azure else '/v1'}"

    @property
    def environment(self) -> dict[str, str]:
        """What a user of this server has in the environment."""
        if self.azure:
            names = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION")
            return dict(zip(names, (KEY, self.url, VERSION), strict=True))
        return {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": self.url}

    def __enter__(self) -> BatchServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_file(self, filename: str, content: bytes | Callable[[], Iterator[bytes]], purpose: str = "batch") -> str:
        """Keep a file; its id."""
        id = f"file-{next(self._numbers)}"
        status = "pending" if self.azure and purpose == "batch" else "processed"
        row = {"id": id, "object": "file", "filename": filename, "purpose": purpose, "status": status}
        self.files[id] = {**row, "content": content}
        return id

    def made(self, what: str) -> int:
        """How often something was made: ``files`` or ``batches``."""
        return sum(method == "POST" and path.endswith(what) for method, path in self.requests)

    def trouble(self, method: str, path: str) -> Any:
        with self._lock:
            self.requests.append((method, path))
            return self.troubles.get(len(self.requests) - 1)

    def answer(self, method: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Status and body of the answer to a request."""
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        root = "/openai/" if self.azure else "/v1/"
        key = headers.get("api-key") if self.azure else headers.get("authorization", "").removeprefix("Bearer ")
        if key != KEY:
            return 401, _error("Incorrect API key provided", "invalid_api_key")
        if not parts.path.startswith(root) or (self.azure and query.get("api-version") != VERSION):
            return 404, _error(f"Invalid URL ({method} {parts.path})")
        kind, *rest = parts.path.removeprefix(root).split("/")
        with self._lock:
            match method, kind, rest:
                case "POST", "files", []:
                    return 200, _shown(self.files[self._upload(headers, body)])
                case "GET", "files", []:
                    rows = [_shown(row) for row in self.files.values() if row["purpose"] == query.get("purpose")]
                    return 200, self._listed(rows[::-1], query)
                case "GET", "files", [id] if id in self.files:
                    shown = _shown(self.files[id])
                    self.files[id]["status"] = "processed"  # at the next look
                    return 200, shown
                case "GET", "files", [id, "content"] if id in self.files:
                    return 200, self.files[id]["content"]
                case "DELETE", "files", [id] if id in self.files:
                    del self.files[id]
                    return 200, {"id": id, "object": "file", "deleted": True}
                case "POST", "batches", []:
                    return self._make(json.loads(body))
                case "GET", "batches", []:
                    return 200, self._listed([_public(row) for row in self.batches.values()][::-1], query)
                case "GET", "batches", [id] if id in self.batches:
                    self._look(id)
                    return 200, self.batches[id]
                case "POST", "batches", [id, "cancel"] if id in self.batches:
                    self.batches[id]["status"] = "cancelling"
                    self._script[id].status = "cancelled"
                    return 200, self.batches[id]
        return 404, _error(f"No such {kind} object: {'/'.join(rest)}")

    def _upload(self, headers: dict[str, str], body: bytes) -> str:
        boundary = b"--" + headers["content-type"].partition("boundary=")[2].encode()
        fields = {}
        for part in body.split(boundary)[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            name = re.search(rb'name="(\w+)"', head)[1].decode()
            fields[name] = (head, content.removesuffix(b"\r\n"))
        assert fields["purpose"][1] == b"batch"
        filename = re.search(rb'filename="([^"]+)"', fields["file"][0])[1].decode()
        return self.add_file(filename, fields["file"][1])

    def _listed(self, rows: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        start = next((k + 1 for k, row in enumerate(rows) if row["id"] == query.get("after")), 0)
        shown = rows[start : start + min(self.page, int(query.get("limit", self.page)))]
        return {"object": "list", "data": shown, "has_more": start + len(shown) < len(rows)}

    def _make(self, asked: dict[str, Any]) -> tuple[int, Any]:
        file = self.files.get(asked["input_file_id"])
        if file is None:
            return 404, _error(f"No such File object: {asked['input_file_id']}")
        if file["status"] != "processed":
            return 400, _error("The file is not processed yet")
        id = f"batch_{next(self._numbers)}"
        lines = [json.loads(line) for line in file["content"].splitlines()]
        end = next(self._ends, None) or End()
        under_way = sum(row["request_counts"]["total"] for row in self.batches.values() if not row["ended"])
        if under_way + len(lines) > self.room:
            end = FULL
        end = End(**vars(end))
        end.faults = end.faults or self._faults(lines, asked["endpoint"])
        end.status = "failed" if end.faults else end.status
        made = [] if end.faults and end.answered is None else lines[: end.answered]
        output, errors = end.edit(*self._work(made, lines[len(made) :], end))
        self._script[id] = end
        self.batches[id] = {
            "id": id,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": "24h",
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "status": "validating",
            "output_file_id": None,
            "error_file_id": "",  # as some endpoints say that there is none
            "errors": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "ended": False,
            "kept": (output, errors),
        }
        return 200, self.batches[id]

    def _faults(self, lines: list[dict[str, Any]], endpoint: str) -> list[dict[str, Any]]:
        path = "/chat/completions" if self.azure else "/v1/chat/completions"
        ids = Counter(line["custom_id"] for line in lines)
        wrong = (line["url"] != path or endpoint != path or line["method"] != "POST" for line in lines)
        faults = [fault("invalid_url", "wrong", k) for k, is_wrong in enumerate(wrong, 1) if is_wrong]
        faults += [fault("duplicate_custom_id", id) for id, times in ids.items() if times > 1]
        return faults + ([] if lines else [fault("empty_file", "no requests")])

    def _work(self, made: list[dict[str, Any]], left: list[dict[str, Any]], end: End) -> tuple[Lines, Lines]:
        output, errors = [], []
        for line in made:
            self.paid[line["custom_id"]] += 1
            self.sent.append(line["body"])
            reply = self.model(Request("POST", line["url"], {}, line["body"])) if callable(self.model) else self.model
            response = {"status_code": reply.status, "request_id": "r", "body": reply.body}
            (output if reply.status == 200 else errors).append(_line(line["custom_id"], response, None))
        if not end.silent and not end.faults:
            reason = {"code": f"batch_{end.status}", "message": f"This request is of a batch that was {end.status}."}
            errors += [_line(line["custom_id"], None, reason) for line in left]
        return output, errors

    def _look(self, id: str) -> None:
        batch, end = self.batches[id], self._script[id]
        if batch["ended"] or not self.open:
            return
        end.looks -= 1
        batch["status"] = "in_progress"
        if end.looks <= 0:
            output, errors = batch["kept"]
            names = {"output_file_id": output, "error_file_id": errors}
            batch |= {
                name: self.add_file(f"{id}_{name}.jsonl", b"".join(lines), "batch_output") if lines else None
                for name, lines in names.items()
            }
            batch["request_counts"] |= {"completed": len(output), "failed": len(errors)}
            batch |= {"status": end.status, "ended": True}
            batch["errors"] = {"object": "list", "data": end.faults} if end.faults else None


def _line(custom_id: str, response: Any, error: Any) -> bytes:
    row = {"id": "batch_req", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row).encode() + b"\n"


def _error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "param": None, "type": "invalid_request_error"}}


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    content = row["content"]
    return {name: value for name, value in row.items() if name != "content"} | {
        "bytes": len(content) if isinstance(content, bytes) else 0
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of several tests


def _handler(server: BatchServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            trouble = server.trouble(self.command, urlsplit(self.path).path)
            if trouble == CUT_BEFORE:
                return self._cut()
            if isinstance(trouble, Reply):
                status, answer = trouble.status, trouble.body
            else:
                status, answer = server.answer(self.command, self.path, headers, body)
            if trouble == CUT_AFTER:
                return self._cut()
            return self._send(status, answer)

        do_POST = do_DELETE = do_GET

        def _send(self, status: int, answer: Any) -> None:
            self.send_response(status)
            if callable(answer):
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in answer():
                    self.wfile.write(piece)
                self.close_connection = True
                return
            if isinstance(answer, dict):
                answer = _public(answer)
            raw = isinstance(answer, bytes)
            body = answer if raw else answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_header("Content-Type", "application/octet-stream" if raw else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def _cut(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("ended", "kept")}
