"""HTTP for the loopback Hub: requests whose bodies are streams, responses from bytes or from part of a file.

It knows no route of the Hub; `hub_routes.py` and `hub_files.py` do.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import socket
import socketserver
import struct
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

CHUNK_BYTES = 1 << 18


class CutError(Exception):
    """The connection is to break now."""


@dataclasses.dataclass
class Request:
    """A request with its path as it was sent (quoted), names of headers in lower case, and its body as a stream."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: io.BufferedReader[Any]

    def read_json(self) -> Any:
        return json.loads(self.body.read() or b"{}")


@dataclasses.dataclass
class Response:
    """A status, headers and either bytes or the part of a file from `start` to `stop`."""

    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    content: bytes = b""
    path: Path | None = None
    start: int = 0
    stop: int = 0


def give_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def give_file(request: Request, path: Path, headers: dict[str, str]) -> Response:
    """A whole file, or the range asked for."""
    size = path.stat().st_size
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Response(200, headers, path=path, stop=size)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return Response(416, {"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(206, headers, path=path, start=start, stop=stop)


class _Body(io.RawIOBase):
    """The body of a request, of a given length or in chunks; it breaks after `num_bytes_to_cut` where that is set."""

    num_bytes_to_cut: int | None = None

    def __init__(self, stream: Any, length: int | None) -> None:
        self._stream = stream
        self._is_chunked = length is None
        self._left = length or 0
        self._ended = length == 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._is_chunked and not self._left and not self._ended:
            self._left = int(self._stream.readline().partition(b";")[0] or b"-1", 16)
            if not self._left:
                self._ended = True
                self._stream.readline()
        data = self._stream.read(min(len(buffer), self._left)) if self._left > 0 else b""
        if self._left and not data:
            raise ConnectionError("the client went away within a body")
        self._left -= len(data)
        if self._is_chunked and data and not self._left:
            self._stream.readline()
        if self.num_bytes_to_cut is not None:
            self.num_bytes_to_cut -= len(data)
            if self.num_bytes_to_cut <= 0:
                raise CutError
        buffer[: len(data)] = data
        return len(data)


def cut_body(request: Request) -> None:
    """Makes the connection break after half of the body, or after its first chunk where the length is not told."""
    raw = request.body.raw
    assert isinstance(raw, _Body)
    raw.num_bytes_to_cut = int(request.headers.get("content-length", 2)) // 2


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except CutError:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except ConnectionError:
            pass

    def respond(self) -> None:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = None if headers.get("transfer-encoding") == "chunked" else int(headers.get("content-length", 0))
        body = io.BufferedReader(_Body(self.rfile, length), CHUNK_BYTES)
        request = Request(self.command, path, dict(parse_qsl(query)), headers, body)
        response = self.server.answer(request)
        while body.read(CHUNK_BYTES):
            pass
        size = response.stop - response.start if response.path else len(response.content)
        lines = {"Content-Length": str(size), "X-Request-Id": uuid.uuid4().hex} | response.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        content = b"" if self.command == "HEAD" else response.content
        self.wfile.write(f"HTTP/1.1 {response.status} Status\r\n{head}\r\n".encode("latin-1") + content)
        if response.path and size and self.command != "HEAD":
            with response.path.open("rb") as file:
                self.connection.sendfile(file, response.start, size)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Server(socketserver.ThreadingTCPServer):
    """Answers every request with what a function makes of it; the function breaks a connection by `CutError`."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.connections: set[socket.socket] = set()

    def hang_up(self) -> None:
        """Ends connections that clients keep open."""
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it ended meanwhile
                continue
