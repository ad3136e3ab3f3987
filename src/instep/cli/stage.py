"""Performs the acts of a walk: each command is a child process in the project's folder.

There is no code path that a user has not. A command that ends with another exit code than the walk
expects ends the walk, loudly; so does one that does not say what a later command needs.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, assert_never

import click

from instep.canonical import Json
from instep.cli.acts import NOW, Act, Run, Start, Step, Stop
from instep.clock import format_instant, system_clock
from instep.errors import InternalError, UnavailableError

READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
CLOSED_WITHIN_S = 60.0
"""How long a child may take to end once it has closed its output."""

SERVICE_OUTPUT_BYTES = 1_000_000
"""The most of a service's output that is shown at once."""

WORTH_SAYING_S = 1.0
"""What took longer is told; a command silent for longer shows on a terminal that it still runs."""


def play(walk: tuple[Act, ...], place: Path, as_json: bool = False) -> Iterator[str]:
    """Performs `walk` in the project at `place`, and yields what is to be printed, as it comes.

    As JSON that is one line per act, with what each command printed with `--json`.

    Raises:
        InternalError (kind "demo-failed").
        UnavailableError (kind "demo-not-ready"): a service did not answer in time.
    """
    stage = _Stage(place)
    started = time.monotonic()
    try:
        for act in walk:
            yield from stage.recorded(act) if as_json else stage.shown(act)
        if not as_json:
            yield f"\nThe whole way took {time.monotonic() - started:.0f} s.\n"
    finally:
        stage.stop()


@dataclass(slots=True)
class _Service:
    """A process that keeps running, and the file that it prints to: a pipe would fill up."""

    process: subprocess.Popen[bytes]
    printed: IO[bytes]
    seen_bytes: int = 0

    def read(self) -> str:
        """Returns what it printed since it was last asked; the file's position is the child's."""
        data = os.pread(self.printed.fileno(), SERVICE_OUTPUT_BYTES, self.seen_bytes)
        self.seen_bytes += len(data)
        return data.decode(errors="replace")


@dataclass(slots=True)
class _Stage:
    """Where the walk is: the values learnt so far, and the service that runs."""

    place: Path
    known: dict[str, str] = field(default_factory=dict)
    service: _Service | None = None

    def shown(self, act: Act) -> Iterator[str]:
        title = f"{act.number}. {act.title}"
        yield f"\n{title}\n{'=' * len(title)}\n"
        for step in act.steps:
            yield from self._shown(step)

    def recorded(self, act: Act) -> Iterator[str]:
        _say(f"act {act.number}: {act.title}", end="\n")
        commands = [self._recorded(step) for step in act.steps]
        body: Json = {"act": act.number, "title": act.title, "commands": commands}
        yield json.dumps(body, ensure_ascii=False) + "\n"

    def _shown(self, step: Step) -> Iterator[str]:
        started = time.monotonic()
        match step:
            case Run():
                line = self._line(step.line)
                yield f"\n$ {line}\n"
                parts = []
                for part in self._output(line, step.exits):
                    parts.append(part)
                    yield part
                self._learn(step, "".join(parts))
            case Start():
                line = self._line(step.line)
                yield f"\n$ {line} &\n"
                yield self._start(line, step.url)
            case Stop():
                yield "\n$ kill -TERM %1\n"
                yield self.stop()
            case _:
                assert_never(step)
        took = time.monotonic() - started
        if step.why:
            yield f"  -> {step.why}{f' ({took:.1f} s)' if took > WORTH_SAYING_S else ''}\n"

    def _recorded(self, step: Step) -> Json:
        match step:
            case Run():
                line = self._line(step.line)
                output = "".join(self._output(f"{line} --json", step.exits, quiet=True))
                self._learn(step, output)
                return {"line": line, "exit": step.exits, "output": _parsed(output)}
            case Start():
                line = self._line(step.line)
                self._start(line, step.url)
                return {"line": line, "exit": None, "output": None}
            case Stop():
                return {"line": "kill", "exit": None, "output": self.stop()}
            case _:
                assert_never(step)

    def _line(self, line: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self.known[found[1]], line)

    def _learn(self, step: Run, output: str) -> None:
        for name, pattern in step.learns.items():
            if pattern == NOW:
                self.known[name] = format_instant(system_clock())
                continue
            found = re.search(pattern, output)
            if found is None:
                raise InternalError(
                    f'"{step.line}" did not say its {name}: expected {pattern} in its output, '
                    f"which was:\n{output}\nReport this as a fault of Instep.",
                    kind="demo-failed",
                )
            self.known[name] = found[1]

    def _output(self, line: str, exits: int, quiet: bool = False) -> Iterator[str]:
        """Yields what a command prints, as it comes; with `quiet`, only its standard output."""
        child = self._child(line, subprocess.PIPE, None if quiet else subprocess.STDOUT)
        try:
            parts = []
            for part in _parts(child):
                parts.append(part)
                yield part
            code = child.wait(timeout=CLOSED_WITHIN_S)
        finally:
            _end(child)
        if code != exits:
            said = f"Standard output was:\n{''.join(parts)}" if quiet else "Its output is above."
            raise InternalError(
                f'"{line}" ended with exit code {code}: expected {exits}. {said}',
                kind="demo-failed",
            )

    def _start(self, line: str, url: str) -> str:
        """Starts a service, waits until it is ready, and returns what it printed until then."""
        printed = tempfile.TemporaryFile()  # noqa: SIM115, closed by stop
        process = self._child(line, printed, subprocess.STDOUT)
        self.service = _Service(process, printed)
        until = time.monotonic() + READY_WITHIN_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise UnavailableError(
                    f'"{line}" does not answer at {url}: expected it to within '
                    f"{READY_WITHIN_S:.0f} s. Its output was:\n{self.stop()}",
                    kind="demo-not-ready",
                )
            time.sleep(0.05)
        return self.service.read()

    def stop(self) -> str:
        """Ends the service, if one runs, and returns what it had not yet said."""
        service, self.service = self.service, None
        if service is None:
            return ""
        with service.printed:
            service.process.terminate()
            try:
                service.process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
            return service.read()

    def _child(
        self, line: str, output: int | IO[bytes], errors: int | None
    ) -> subprocess.Popen[bytes]:
        """Starts `line`, whose programs are first looked for beside this interpreter."""
        scripts = str(Path(sys.executable).parent)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "INSTEP_ACTOR"},
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
            "PYTHONUNBUFFERED": "1",
        }
        words = shlex.split(line)
        program = shutil.which(words[0], path=environment["PATH"])
        return subprocess.Popen(
            [program or words[0], *words[1:]],
            cwd=self.place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )


def _parts(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yields output as it comes; while there is none, a terminal is shown how long it has been."""
    assert child.stdout is not None
    pipe = child.stdout.fileno()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    started = time.monotonic()
    while True:
        while not select.select([pipe], [], [], WORTH_SAYING_S)[0]:
            _say(f"{time.monotonic() - started:.0f} s", end="\r")
        data = os.read(pipe, 65_536)
        if not data:
            return
        yield decoder.decode(data)


def _say(text: str, end: str) -> None:
    """Tells a terminal, and nothing else, that something is going on."""
    if sys.stderr.isatty():
        click.echo(f"  ... {text}{end}", nl=False, err=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.kill()
        child.wait()
    assert child.stdout is not None
    child.stdout.close()


def _answers(url: str) -> bool:
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, reset, not yet there: URLError is one too
        return False


def _parsed(output: str) -> Json:
    """Returns the JSON that a command printed: a document, a list of one per line, or its text."""
    documents: list[Json] = []
    for line in output.splitlines():
        try:
            documents.append(json.loads(line))
        except ValueError:
            return output
    return documents[0] if len(documents) == 1 else documents
