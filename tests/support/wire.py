"""What happens to connections with PostgreSQL: a wire that loses answers, and sessions that end."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BEGIN, COMMIT = rb"\0begin\0", rb"[\0\x0b]commit\0"
"""Statements in PostgreSQL's protocol, in small letters: alone (Query, length, text), or sent with
others (Parse, length, no name, text)."""

_COMMIT = b"commit\0"
_ENDED = b"Z\0\0\0\5I"
"""Ends the answer after which no transaction is open."""


class Wire:
    """A proxy before PostgreSQL that can lose what it answers, be cut, or tell of each commit."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.loses_answer_to: bytes | None = None
        """A pattern of what is asked, in small letters."""
        self.loses_answer_number = 0
        self.questions = 0
        """How often something was asked; the answer to one number may get lost."""
        self.refuses = False
        self.refuses_after_loss = False
        self.committed: Callable[[], None] | None = None
        """Called after each commit, before who asked for it is answered."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            lost, commits = threading.Event(), threading.Event()
            for source, sink, is_question in ((client, server, True), (server, client, False)):
                ends = (source, sink, is_question, lost, commits)
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(
        self,
        source: socket.socket,
        sink: socket.socket,
        is_question: bool,
        lost: threading.Event,
        commits: threading.Event,
    ) -> None:
        while True:
            try:
                data = source.recv(65_536)
            except OSError:
                data = b""
            asked = is_question and self.loses_answer_to
            if asked and re.search(asked, data.lower()):
                self.loses_answer_to = None
                self.refuses |= self.refuses_after_loss
                lost.set()
            self.questions += is_question and bool(data)
            if is_question and self.questions == self.loses_answer_number:
                lost.set()
            if not data or (not is_question and lost.is_set()):
                for end in (source, sink):
                    with _ignored():
                        end.shutdown(socket.SHUT_RDWR)
                return
            if is_question and _COMMIT in data:
                commits.set()
            if not is_question and commits.is_set() and data.endswith(_ENDED):
                commits.clear()
                if self.committed is not None:
                    self.committed()
            with _ignored():
                sink.sendall(data)


def end_sessions(url: str) -> None:
    """Ends every session of a server, as its restart does; each learns of it when it asks next."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as own:
        own.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except OSError:
        return
