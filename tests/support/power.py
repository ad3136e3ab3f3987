"""What a disk holds after a power loss, rebuilt from the system calls that a command really made.

`strace` records the calls; a disk in memory repeats them. Only what was synced is sure to survive:
the bytes of a file by an fsync of it, names in a folder by an fsync of the folder. Whatever else
may survive too; the two ends are looked at, no name that was not synced, and every such name over
bytes that were not.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from commands import SECONDS, Ask, ask_once

_WRITES = "openat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,sendto"
_NAMES = "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat"
_ALL = "syncfs,sync"
_NOT_KNOWN = "writev,pwritev,pwritev2,sendfile,copy_file_range,fallocate,link,linkat,symlink"
_LONGEST = 1 << 26
"""Bytes of one write that are recorded; none is longer."""

_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
_HANDLE = re.compile(r"(\d+|AT_FDCWD)<([^>]*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded, its arguments as strace writes them."""

    name: str
    arguments: tuple[str, ...]
    result: int
    opened: str

    @property
    def handle(self) -> str:
        found = _HANDLE.match(self.arguments[0])
        return found[1] if found else ""

    @property
    def path(self) -> Path:
        """Returns the file that the first argument, a handle, stands for."""
        found = _HANDLE.match(self.arguments[0])
        return Path(os.fsdecode(_bytes(found[2]))) if found else Path()

    def named(self, place: int) -> Path:
        """Returns the file that an argument names; the one before may be the folder it is in."""
        folder = _HANDLE.match(self.arguments[place - 1]) if place else None
        name = Path(os.fsdecode(_bytes(self.arguments[place])))
        return Path(os.fsdecode(_bytes(folder[2]))) / name if folder else name

    @property
    def data(self) -> bytes:
        return _bytes(self.arguments[1])[: self.result]


def recorded(
    words: Sequence[str], at: Path, env: dict[str, str], to: Path, ask: Ask | None = None
) -> list[Call]:
    """Runs a command to its successful end and returns its system calls, in order.

    With `ask` it is a server: it is asked when it is ready, and then told to stop.
    """
    traced = ",".join((_WRITES, _NAMES, _ALL, _NOT_KNOWN))
    strace = ["strace", "--seccomp-bpf", "-f", "-y", "-xx", "-s", str(_LONGEST), "-e", traced]
    with subprocess.Popen(
        [*strace, "-o", str(to), sys.executable, "-m", "instep", *words],
        cwd=at,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if ask is not None:
            assert process.stdout is not None
            ask_once(process.stdout, lambda: os.kill(_child(process.pid), signal.SIGTERM), ask)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return list(calls(to.read_text()))


def _child(process: int) -> int:
    """Returns the process that strace began."""
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


def asks_commit(call: Call) -> bool:
    """Says whether the call sends PostgreSQL a COMMIT: alone, or behind what came before it."""
    return call.name == "sendto" and b"commit\0" in call.data


def calls(text: str) -> Iterator[Call]:
    """Yields the calls that succeeded; one that another interrupts counts when it ends."""
    begun: dict[str, str] = {}
    for line in text.splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if rest.startswith("<... "):
            rest = begun.pop(thread, "") + rest.partition("resumed>")[2]
        found = _CALL.match(rest)
        if found and int(found[3]) >= 0:
            yield Call(found[1], tuple(found[2].split(", ")), int(found[3]), found[4] or "")


class Survives(StrEnum):
    """What else than the synced a power loss leaves."""

    NOTHING = "nothing"
    NAMES = "names"


@dataclass(eq=False, slots=True)
class File:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False, slots=True)
class Folder:
    entries: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)


class Disk:
    """The folder `root` as it is now, all of it synced, and then as each call leaves it."""

    def __init__(self, root: Path, deaf_to: frozenset[type] = frozenset()) -> None:
        self.root = root
        self._deaf_to = deaf_to
        self._top = _loaded(root)
        self._positions: dict[tuple[str, Path], int | None] = {}

    def apply(self, call: Call) -> bool:
        """Repeats a call; says whether it synced something under the root."""
        match call.name:
            case "openat":
                self._open(call)
            case "write" | "pwrite64" | "lseek" | "ftruncate":
                self._change(call)
            case "fsync" | "fdatasync":
                return self._sync(self._find(call.path))
            case "syncfs" | "sync":
                return self._sync_all(self._top)
            case "rename" | "renameat" | "renameat2":
                places = (0, 1) if call.name == "rename" else (1, 3)
                self._rename(*(call.named(place) for place in places))
            case "unlink" | "unlinkat" | "rmdir":
                self._entries(call.named("at" in call.name)).pop(call.named("at" in call.name).name)
            case "mkdir" | "mkdirat":
                path = call.named("at" in call.name)
                self._entries(path)[path.name] = Folder()
            case "sendto":
                pass
            case _:
                assert self._find(call.path) is None, f"{call.name} cannot be repeated"
        return False

    def restore(self, survives: Survives) -> None:
        """Makes the real folder what it would be after a power loss now."""
        shutil.rmtree(self.root, ignore_errors=True)
        _write(self._top, self.root, survives)

    def _open(self, call: Call) -> None:
        path, flags = call.named(1), call.arguments[2]
        entries = self._entries(path)
        if "O_CREAT" in flags and path.name not in entries:
            entries[path.name] = File()
        node = entries.get(path.name)
        if isinstance(node, File) and "O_TRUNC" in flags:
            node.data.clear()
        self._positions[str(call.result), path] = None if "O_APPEND" in flags else 0

    def _change(self, call: Call) -> None:
        path = call.path
        file = self._find(path)
        if not isinstance(file, File):
            return
        place = (call.handle, path)
        match call.name:
            case "lseek":
                self._positions[place] = call.result
            case "ftruncate":
                size = int(call.arguments[1])
                file.data[size:] = bytes(max(0, size - len(file.data)))
            case "pwrite64":
                _put(file, int(call.arguments[3]), call.data)
            case _:
                at = self._positions.get(place, 0)
                _put(file, len(file.data) if at is None else at, call.data)
                if at is not None:
                    self._positions[place] = at + call.result

    def _sync(self, node: File | Folder | None) -> bool:
        if type(node) in self._deaf_to:
            return False
        match node:
            case File():
                node.synced = bytes(node.data)
            case Folder():
                node.synced = dict(node.entries)
        return node is not None

    def _sync_all(self, folder: Folder) -> bool:
        for node in folder.entries.values():
            if isinstance(node, Folder):
                self._sync_all(node)
            else:
                self._sync(node)
        return self._sync(folder)

    def _rename(self, before: Path, after: Path) -> None:
        node = self._entries(before).pop(before.name, None)
        if node is not None:
            self._entries(after)[after.name] = node
            for handle, path in list(self._positions):
                if path == before:
                    self._positions[handle, after] = self._positions.pop((handle, path))

    def _find(self, path: Path) -> File | Folder | None:
        if not path.is_relative_to(self.root):
            return None
        node: File | Folder | None = self._top
        for part in path.relative_to(self.root).parts:
            node = node.entries.get(part) if isinstance(node, Folder) else None
        return node

    def _entries(self, path: Path) -> dict[str, File | Folder]:
        """Returns what is beside `path`; outside the root, nothing that is kept."""
        folder = self._find(path.parent)
        return folder.entries if isinstance(folder, Folder) else {path.name: Folder()}


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


def _put(file: File, at: int, data: bytes) -> None:
    file.data.extend(bytes(max(0, at - len(file.data))))
    file.data[at : at + len(data)] = data


def _loaded(folder: Path) -> Folder:
    entries: dict[str, File | Folder] = {}
    for path in folder.iterdir():
        if path.is_dir():
            entries[path.name] = _loaded(path)
        else:
            data = path.read_bytes()
            entries[path.name] = File(bytearray(data), data)
    return Folder(entries, dict(entries))


def _write(folder: Folder, to: Path, survives: Survives) -> None:
    to.mkdir()
    named = folder.synced if survives is Survives.NOTHING else folder.entries
    for name, node in named.items():
        match node:
            case File():
                # What SQLite's processes share is memory, never on the disk for good.
                if not name.endswith("-shm"):
                    (to / name).write_bytes(node.synced)
            case Folder():
                _write(node, to / name, survives)
