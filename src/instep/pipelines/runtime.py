"""The runtime of a run: interpreter, platform, and all packages with versions and hashes.

Two environments with the same packages have the same digest wherever they lie: of each package
only the hashes of its own files count, not its scripts, which name the folder of the interpreter.
Hashing takes a tenth of a second, so the answer is kept for as long as no package folder changed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.canonical import Json, canonical_bytes, digest_of

_EDITABLE = "editable"
_BOOKKEEPING = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed distribution; `files_digest` is "editable" where its files may change."""

    version: str
    files_digest: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What ran the code, besides the code."""

    interpreter: str
    platform: str
    packages: Mapping[str, Package]

    @property
    def digest(self) -> str:
        return digest_of("instep.runtime.v1", self.to_json())

    def to_json(self) -> dict[str, Json]:
        return {
            "interpreter": self.interpreter,
            "platform": self.platform,
            "packages": {
                name: [package.version, package.files_digest]
                for name, package in sorted(self.packages.items())
            },
        }

    def to_bytes(self) -> bytes:
        return canonical_bytes(self.to_json())


def differences(before: Runtime, after: Runtime) -> tuple[str, ...]:
    """Returns what changed from one runtime to another, each as a short phrase."""
    found = [
        f"{what} {old} -> {new}"
        for what, old, new in (
            ("interpreter", before.interpreter, after.interpreter),
            ("platform", before.platform, after.platform),
        )
        if old != new
    ]
    for name in sorted(before.packages.keys() | after.packages.keys()):
        old_package, new_package = before.packages.get(name), after.packages.get(name)
        if old_package == new_package:
            continue
        old_text = old_package.version if old_package else "absent"
        new_text = new_package.version if new_package else "absent"
        same = " (other files)" if old_text == new_text else ""
        found.append(f"{name} {old_text} -> {new_text}{same}")
    return tuple(found)


def load_runtime(cache: Path) -> Runtime:
    """Returns the runtime of this process; `cache` is the folder where an answer is kept."""
    stamp = _stamp()
    file = cache / f"{hashlib.sha256(stamp.encode()).hexdigest()}.json"
    try:
        return parse_runtime(file.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # not kept yet, or not whole
    found = read_runtime()
    cache.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{hashlib.sha256(str(id(found)).encode()).hexdigest()[:8]}")
    temporary.write_bytes(found.to_bytes())
    temporary.rename(file)
    return found


def read_runtime() -> Runtime:
    """Returns the runtime of this process, read from the installed packages themselves."""
    from importlib.metadata import distributions

    packages: dict[str, Package] = {}
    for one in distributions():
        name = (one.metadata["Name"] or "").lower().replace("_", "-").replace(".", "-")
        if name and name not in packages:  # the first on the path is the one imported
            record = one.read_text("RECORD") or ""
            editable = _EDITABLE in (one.read_text("direct_url.json") or "")
            digest = _EDITABLE if editable else _record_digest(record)
            packages[name] = Package(one.version or "", digest)
    return Runtime(_interpreter(), _platform(), packages)


def parse_runtime(data: bytes) -> Runtime:
    """Returns the runtime that `Runtime.to_bytes` gave."""
    body = json.loads(data)
    packages = {name: Package(*pair) for name, pair in body["packages"].items()}
    return Runtime(body["interpreter"], body["platform"], packages)


def _interpreter() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _platform() -> str:
    return f"{platform.system()}-{platform.machine()}-{'-'.join(platform.libc_ver()) or 'libc'}"


def _record_digest(record: str) -> str:
    lines = sorted(_hashed(record))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hashed(record: str) -> Iterator[str]:
    for line in record.splitlines():
        path, _, rest = line.partition(",")
        if not rest.startswith("sha256=") or path.startswith(("..", "/")):
            continue
        if ".dist-info/" in path and path.rpartition("/")[2] in _BOOKKEEPING:
            continue
        yield line


def _stamp() -> str:
    """Changes whenever a package is installed or removed: each rewrites its folder's entries."""
    folders = [Path(path) for path in sys.path if path]
    marks = [f"{folder}:{folder.stat().st_mtime_ns}" for folder in folders if folder.is_dir()]
    return "\n".join([_interpreter(), _platform(), sys.executable, *marks])
