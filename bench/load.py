"""A cheap load generator: one thread, several keep-alive connections, each asks again at once.

It runs as a process of its own, so that it does not share the server's interpreter. Written on bare
sockets because an HTTP client library would cost more than the server it measures.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Measured:
    """What one load found; latencies are of whole requests, in milliseconds."""

    requests: int
    failed: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    receipts: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    asked_at: float = 0.0


def load(
    host: str, port: int, path: str, bodies: Sequence[bytes], seconds: float, connections: int
) -> Measured:
    """Asks for `seconds` over `connections` connections, and returns what was measured.

    Ends early, and says what was acknowledged until then, when the server goes away.
    """
    requests = [
        b"POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path.encode(), host.encode(), port, len(body), body)
        for body in bodies
    ]
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    receipts: list[str] = []
    failed = asked = 0
    start = time.perf_counter()
    for _ in range(connections):
        connection = _Connection(socket.create_connection((host, port)))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.asked_at = time.perf_counter()
        connection.socket.sendall(requests[asked % len(requests)])
        asked += 1
    gone = False
    while not gone and time.perf_counter() - start < seconds:
        for key, _ in selector.select(timeout=1.0):
            connection = key.data
            try:
                part = connection.socket.recv(65536)
                if not part:
                    raise ConnectionError
                connection.buffer += part
                answer = _answer(connection.buffer)
                if answer is None:
                    continue
                now = time.perf_counter()
                latencies.append(now - connection.asked_at)
                status, body = answer
                failed += status != 200
                if b'"receipt":"' in body:
                    receipts.append(body.split(b'"receipt":"', 1)[1].split(b'"', 1)[0].decode())
                connection.asked_at = now
                connection.socket.sendall(requests[asked % len(requests)])
                asked += 1
            except ConnectionError:
                gone = True
    elapsed = time.perf_counter() - start
    latencies.sort()
    count = len(latencies)
    return Measured(
        requests=count,
        failed=failed,
        seconds=elapsed,
        per_second=count / elapsed,
        p50_ms=latencies[count // 2] * 1000 if count else 0.0,
        p99_ms=latencies[min(count - 1, count * 99 // 100)] * 1000 if count else 0.0,
        receipts=receipts,
    )


def _answer(buffer: bytearray) -> tuple[int, bytes] | None:
    """Returns the status and body of the whole answer in `buffer`, and empties it."""
    head, separator, body = buffer.partition(b"\r\n\r\n")
    if not separator:
        return None
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    if len(body) < length:
        return None
    buffer.clear()
    return int(head.split(b" ", 2)[1]), bytes(body)


if __name__ == "__main__":
    _, host, port, path, file, seconds, connections = sys.argv
    lines = Path(file).read_bytes().splitlines()
    print(json.dumps(asdict(load(host, int(port), path, lines, float(seconds), int(connections)))))
