"""A proxy before an S3 server: slow, failing, throttling, and losing replies to what was done.

It carries any HTTP, and may let something happen before a request goes on.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Fault(Enum):
    """What happens to a request."""

    FAILS = "InternalError"
    THROTTLED = "SlowDown"
    LOST = "the store does it, and the reply is lost"
    CUT = "the reply breaks off in the middle"
    DENIED = "AccessDenied"
    HANGS = "the reply stops in the middle until its client gives up"
    STALLS = "the store is silent until its client gives up"


_STATUS = {Fault.FAILS: 500, Fault.THROTTLED: 503, Fault.DENIED: 403}


@dataclass(slots=True)
class Storm:
    """What the proxy does, from now on: `faults` to the next requests of a method, one each."""

    target: str
    delay_s: float = 0.0
    faults: dict[str, list[Fault | None]] = field(default_factory=dict)
    always: Fault | None = None
    meanwhile: Callable[[str, str], None] | None = None
    """Called with method and path of each request before it goes on."""
    asked: list[str] = field(default_factory=list)
    """Method and path of each request that came."""
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.asked.append(f"{method} {path}")
            waiting = self.faults.get(method)
            return waiting.pop(0) if waiting else self.always


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    storm: Storm


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do(self) -> None:
        storm = self.server.storm
        fault = storm.next(self.command, self.path)
        data = self._body()
        if storm.delay_s:
            time.sleep(storm.delay_s)  # the store is slow: this is what is tested
        if storm.meanwhile is not None:
            storm.meanwhile(self.command, self.path)
        if fault is Fault.STALLS:
            self.server.storm.ended.wait()
            self.close_connection = True
            return
        if fault is not None and fault in _STATUS:
            self._refuse(fault)
            return
        status, headers, reply = self._forward(data)
        if fault is Fault.LOST:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in headers}.get("content-length")
        is_head = self.command == "HEAD"
        self.send_header("Content-Length", str(length) if is_head and length else str(len(reply)))
        self.end_headers()
        if fault in (Fault.CUT, Fault.HANGS):
            self.wfile.write(reply[: len(reply) // 2])
            self.wfile.flush()
            if fault is Fault.HANGS:
                storm.ended.wait()
            self.close_connection = True
            return
        self.wfile.write(reply)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 (http.server's names)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        """Says nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, data: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        target = urlsplit(self.server.storm.target)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
        left_out = ("transfer-encoding", "expect", "content-length", "connection")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in left_out}
        connection.request(self.command, self.path, data, headers)
        found = connection.getresponse()
        reply = found.read()
        connection.close()
        return found.status, found.getheaders(), reply

    def _refuse(self, fault: Fault) -> None:
        text = f"<Error><Code>{fault.value}</Code><Message>As asked for.</Message></Error>"
        self.send_response(_STATUS[fault])
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


@contextmanager
def storm(target: str) -> Iterator[Storm]:
    """Gives a proxy before the server at `target`; it begins calm."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.storm = Storm(target, url=f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.storm
    finally:
        server.storm.ended.set()
        server.shutdown()
        server.server_close()
