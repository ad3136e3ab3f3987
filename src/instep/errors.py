"""What can go wrong, by what the caller does next.

Seven families. Each error has a lasting `kind` (documented in `docs/errors.md`), its facts as
fields, and a message in this order: what, with which value, what was expected, what to do.
What is wrong with the *data* is a finding (`findings.py`), never an exception.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar

Fact = str | int | bool | None | tuple[str, ...]

_NAMED = 20
"""How many names a message lists; beyond it nobody reads them."""


def some_of(names: Sequence[str]) -> str:
    """Returns the names as a message lists them: the first of them, and how many there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


class InstepError(Exception):
    """The act could not be done, and nothing of it was left half done."""

    family: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, kind: str, **facts: Fact) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.facts = facts

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kind={self.kind!r}, message={self.message!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.kind, self.facts))


def _rebuild(
    cls: type[InstepError], message: str, kind: str, facts: dict[str, Fact]
) -> InstepError:
    return cls(message, kind=kind, **facts)


class InvalidError(InstepError):
    """The input is wrong: fix it."""

    family = "invalid"
    exit_code = 2


class NotFoundError(InstepError):
    """What was named does not exist."""

    family = "not-found"
    exit_code = 3


class ConflictError(InstepError):
    """Somebody else moved first: refresh, then try again."""

    family = "conflict"
    exit_code = 4


class RefusedError(InstepError):
    """A gate said no; the message says why, and who may allow it."""

    family = "refused"
    exit_code = 5


class UnavailableError(InstepError):
    """Something needed is not reachable now: wait, then try again."""

    family = "unavailable"
    exit_code = 6


class OutcomeUnknownError(InstepError):
    """The act may or may not have happened: read back before trying again."""

    family = "outcome-unknown"
    exit_code = 7


class InternalError(InstepError):
    """A fault of Instep itself."""

    family = "internal"
    exit_code = 8


FAMILIES: tuple[type[InstepError], ...] = (
    InvalidError,
    NotFoundError,
    ConflictError,
    RefusedError,
    UnavailableError,
    OutcomeUnknownError,
    InternalError,
)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def disk_error(error: OSError) -> UnavailableError | None:
    """Returns what a system call's error means for who gave the command; None when no disk is."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return UnavailableError(
            f"The disk is full or failing{where}: {error.strerror}. Make room, then give the same "
            "command again: what is done already is not done twice.",
            kind="disk-failed",
        )
    if error.errno in _NOT_WRITABLE:
        return UnavailableError(
            f"A file cannot be written{where}: {error.strerror}. Make it writable, then give the "
            "same command again: what is done already is not done twice.",
            kind="read-only-lake",
        )
    return None
