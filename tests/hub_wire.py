"""The tests' Hub on the wire: what a request and a reply are, and how they cross the network, soon or slowly."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from hub_contents import Content, OnDisk, written

if TYPE_CHECKING:
    from hub import HubServer

PER_SECOND = 20  # pieces of a body that trickles
_arrivals = count(1)


@dataclass(frozen=True)
class Request:
    """What the server saw; as text it is the method and the path, without the query."""

    method: str
    path: str
    segments: list[str]  # a slash inside of one came encoded, as in refs%2Fpr%2F1
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Content
    whole: bool = True  # or the client hung up before the end of the body

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def json(self) -> Any:
        return json.loads(bytes(self.body) or b"{}")

    def target(self, **changes: str) -> str:
        """Path and query as they came, but for some words of the query."""
        path = "/".join(quote(segment, safe="") for segment in self.segments)
        return f"/{path}?{urlencode({**self.query, **changes})}"


@dataclass
class Reply:
    """One HTTP answer.

    Attributes:
        body: goes out as JSON unless it is bytes.
        status: without one the connection breaks.
        pause: the seconds before it goes out.
        rate: at most so many bytes of the body a second.
        cut: the connection breaks after so many bytes of the body.
    """

    body: Any = None
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0
    rate: float | None = None
    cut: int | None = None


class Refusal(Exception):
    """An error answer, in the headers and the body that the clients look into."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] = {}, **fields: Any):
        named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply({"error": message, **fields}, status, {**named, **headers})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, hub: HubServer):
        super().__init__(("127.0.0.1", 0), _handler(hub))
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a client that hangs up is part of several tests
            self.hub.mistakes.append(error)


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body leave in one packet; otherwise Nagle's algorithm costs 40 ms a request

        def setup(self) -> None:
            hub.connections.append(self.request)
            super().setup()

        def respond(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            size = int(headers.get("content-length", 0))
            body = self.received(size)
            target = urlsplit(self.path)
            segments = [unquote(part) for part in target.path.strip("/").split("/")]
            query, whole = dict(parse_qsl(target.query)), len(body) == size
            try:
                reply = hub.answer(Request(self.command, unquote(target.path), segments, query, headers, body, whole))
            finally:
                if isinstance(body, OnDisk):
                    body.path.unlink(missing_ok=True)  # unless the answer was to move it to where it is kept
            if hub.closing.wait(reply.pause) or reply.status is None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            else:
                self.send(reply, reply.status)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

        def received(self, size: int) -> Content:
            """The body, or as much of it as comes before the connection shall break."""
            parts = self.arriving(size)
            if self.command == "PUT" and hub.folder is not None and size >= hub.on_disk_from:
                hub.folder.mkdir(parents=True, exist_ok=True)
                return written(parts, hub.folder / f"arriving-{next(_arrivals)}")
            return b"".join(parts)

        def arriving(self, size: int) -> Iterator[bytes]:
            while size and (part := self.rfile.read1(min(size, 2**16))):
                size -= len(part)
                yield part
                if not hub.lives_through(len(part)):
                    break

        def send(self, reply: Reply, status: int) -> None:
            plain = isinstance(reply.body, Content)
            body = reply.body if plain else json.dumps(reply.body, default=str).encode()
            kind = "application/octet-stream" if plain else "application/json"
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value.replace("\n", " ").encode("ascii", "replace").decode())
            self.end_headers()
            if self.command != "HEAD":
                for part in self.pieces(body[: reply.cut], reply.rate):
                    self.put(part)
                self.close_connection |= reply.cut is not None
            self.wfile.flush()

        def pieces(self, body: Content, rate: float | None) -> Iterator[Content]:
            """All of a body at once, or one piece after the other, until the server closes."""
            step = max(1, int(rate / PER_SECOND)) if rate else len(body) or 1
            for start in range(0, len(body), step):
                yield body[start : start + step]
                if rate:
                    self.wfile.flush()
                    if hub.closing.wait(step / rate):
                        self.close_connection = True
                        return

        def put(self, part: Content) -> None:
            if isinstance(part, OnDisk):
                self.wfile.flush()
                part.send(self.connection)
            else:
                self.wfile.write(part)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
