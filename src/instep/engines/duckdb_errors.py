"""Turns what DuckDB raises into errors of the seven families."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb

from instep.errors import InvalidError, UnavailableError

Translation = Callable[[str, duckdb.Error], InvalidError]
"""What an error is that comes of the statement itself, or of the files that it reads."""


def _failed(what: str, error: duckdb.Error) -> InvalidError:
    return InvalidError(
        f"{what} failed: {_first_lines(error)}. Correct the statement.", kind="sql-failed"
    )


def damaged(what: str, error: duckdb.Error) -> InvalidError:
    """Returns the error of a file that cannot be read as Parquet."""
    return InvalidError(
        f"{what} cannot be read: {_first_lines(error)}. Restore the file from a backup.",
        kind="damaged-file",
    )


def _first_lines(error: duckdb.Error) -> str:
    return str(error).strip().split("\n\nLINE ")[0].rstrip(".")


@contextmanager
def translated(what: str, invalid: Translation = _failed) -> Iterator[None]:
    """Turns what DuckDB raises into errors of the seven families; `what` was being done."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnavailableError(
            f"{what} needs more memory or disk than allowed: {_first_lines(error)}. "
            "Give the run more, or make it smaller.",
            kind="out-of-memory",
        ) from error
    except duckdb.PermissionException as error:
        raise InvalidError(
            f"{what} reads something outside its inputs: {_first_lines(error)}: expected only "
            "registered tables. Name a table instead.",
            kind="sql-not-allowed",
        ) from error
    except duckdb.IOException as error:
        if invalid is damaged:
            raise damaged(what, error) from error
        raise UnavailableError(
            f"{what} could not read or write the disk: {_first_lines(error)}. "
            "Make room on it, or repair it, then try again.",
            kind="disk-failed",
        ) from error
    except duckdb.Error as error:
        raise invalid(what, error) from error
