"""A real HTTP server for tests: a scripted chat endpoint on 127.0.0.1.

    with ChatServer([Reply(status=503), chat("SELECT 1")]) as server:
        OpenAI("tiny", base_url=server.url)

Each request takes the next entry of the script; when the script is used up, ``otherwise`` answers the rest.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One HTTP answer.

    Attributes:
        body: goes out as JSON unless it is text or bytes.
        delay: seconds before anything goes out.
        reset: break the connection instead.
        cut: break it after so many bytes of the body.
        drip: seconds between one piece of ten bytes and the next.
    """

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False
    cut: int | None = None
    drip: float = 0.0


@dataclass
class Request:
    """What the server saw."""

    method: str
    path: str
    headers: dict[str, str]
    json: Any


Behaviour = Reply | Callable[[Request], Reply]


def chat(*texts: str | None, finish_reason: str = "stop", prompt_tokens: int = 7, completion_tokens: int = 5) -> Reply:
    """A chat completion with one choice for each text; the usage counts all choices together, as real servers do."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens * len(texts)}
    return Reply({"object": "chat.completion", "model": "tiny-2026", "choices": choices, "usage": usage})


def obedient(request: Request) -> Reply:
    """An endpoint that gives the ``n`` choices asked for; each names its seed and place."""
    return chat(*(f"seed {request.json['seed']} choice {i}" for i in range(request.json.get("n", 1))))


def failure(status: int, message: str, headers: dict[str, str] | None = None, **fields: Any) -> Reply:
    """An error in the form that OpenAI-compatible endpoints use."""
    return Reply({"error": {"message": message, **fields}}, status=status, headers=headers or {})


class ChatServer:
    """A context manager around a threading HTTP server on a free port; remembers every request in ``requests``.

    Args:
        script: what to answer to the first requests, in order of arrival.
        otherwise: what to answer to all further ones.
    """

    def __init__(self, script: Iterable[Behaviour] = (), otherwise: Behaviour = obedient):
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._script = iter(script)
        self._otherwise = otherwise
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL, ending in ``/v1``."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Reply:
        """The scripted answer to one request, after its delay."""
        with self._lock:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            behaviour = next(self._script, self._otherwise)
        try:
            reply = behaviour(request) if callable(behaviour) else behaviour
            time.sleep(reply.delay)
            return reply
        finally:
            with self._lock:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up is part of several tests


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body leave in one packet; otherwise Nagle's algorithm costs 40 ms a request

        def do_GET(self) -> None:
            self._respond(None)

        def do_POST(self) -> None:
            self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _respond(self, sent: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = server.answer(Request(self.command, self.path, headers, sent))
            if reply.reset:
                return self._break()
            body, kind = reply.body, "text/html"
            if not isinstance(body, (str, bytes)):
                body, kind = json.dumps(body), "application/json"
            body = body.encode() if isinstance(body, str) else body
            self.send_response(reply.status)
            for name, value in ({"Content-Type": kind} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if reply.cut is not None:
                self.wfile.write(body[: reply.cut])
                self.wfile.flush()
                return self._break()
            for start in range(0, len(body), 10) if reply.drip else ():
                self.wfile.write(body[start : start + 10])
                self.wfile.flush()
                time.sleep(reply.drip)
            self.wfile.write(b"" if reply.drip else body)
            self.wfile.flush()

        def _break(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
