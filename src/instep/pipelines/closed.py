"""What a training step may open: its captured code and data, its staging area, and the platform.

Everything else could be another thing tomorrow, and would reach the run without a record. An audit
hook cannot be removed, so it looks at a flag. Compiled libraries can still go round it: it catches
mistakes, not malice.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instep.errors import InvalidError

_PLATFORM = (
    "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/System",
    "/usr/share/zoneinfo", "/usr/share/locale", "/var/db/timezone",
    "/etc/localtime", "/etc/ld.so.cache", "/etc/mime.types", "/etc/os-release",
    "/proc", "/sys", "/dev",
)  # fmt: skip
"""Libraries, time zones, languages, and what the system tells of the machine; but of a project that
lies there, as one in /dev/shm does, nothing."""


@contextlib.contextmanager
def closed_to_the_rest(project: Path, code: Path, staging: Path, scratch: Path) -> Iterator[None]:
    """Refuses, while it holds, files from elsewhere and the network.

    Temporary files and the home folder of the step are in `scratch` meanwhile, so that libraries
    find no settings of the user's.

    Raises, within:
        InvalidError (kinds "undeclared-file", "network-in-step").
    """
    own = (code, staging, *_interpreter(project))
    state = {"closed": True}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # The arguments of an audit event are what the caller gave.
        if not state["closed"]:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            # Path.resolve() is for paths that exist, and would follow the links of a virtualenv.
            path = Path(os.path.abspath(os.fsdecode(arguments[0])))  # noqa: PTH100
            is_platform = any(map(path.is_relative_to, _PLATFORM))
            if is_platform and not path.is_relative_to(project):
                return
            if not any(map(path.is_relative_to, own)):
                raise _undeclared(path, project)
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            raise InvalidError(
                f"A step connects to {arguments[1][0]}: expected only its tables and declared "
                "files. Ingest what it needs, then read it as a table.",
                kind="network-in-step",
            )

    scratch.mkdir(parents=True, exist_ok=True)
    sys.addaudithook(hook)
    with _at_home_in(scratch):
        try:
            yield
        finally:
            state["closed"] = False


def _interpreter(project: Path) -> list[Path]:
    """Returns where modules are imported from; of the project, only an environment within it."""
    own = [Path(sys.prefix), Path(sys.base_prefix)]
    others = [Path(entry) for entry in sys.path if entry]
    return own + [
        path
        for path in others
        if not path.is_relative_to(project) and not project.is_relative_to(path)
    ]


@contextlib.contextmanager
def _at_home_in(folder: Path) -> Iterator[None]:
    """Puts temporary files and the home folder into `folder`."""
    names = ("HOME", "TMPDIR")
    before = {name: os.environ.get(name) for name in names}
    before_tempdir = tempfile.tempdir
    os.environ.update(dict.fromkeys(names, str(folder)))
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before_tempdir
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _undeclared(path: Path, project: Path) -> InvalidError:
    if path.is_relative_to(project):
        shown = str(path.relative_to(project))
        why = "was not captured"
        mend = "Add it to `data:` of the pipeline, and open it by this relative path."
    else:
        shown = str(path)
        why = "is outside of the run"
        mend = (
            "Ingest it and read it as a table, or copy it into the project and add it to `data:` "
            "of the pipeline; temporary files are made with tempfile."
        )
    return InvalidError(
        f'A step opens "{shown}", which {why}: expected only declared files. {mend}',
        kind="undeclared-file",
        path=shown,
    )
