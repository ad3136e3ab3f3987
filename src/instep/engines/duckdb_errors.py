"""Turns what DuckDB raises into errors of the seven families."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import duckdb

from instep.errors import InvalidError, UnavailableError, some_of

_SHOWN = 80
"""How many characters of the line that failed a message shows."""

Translation = Callable[[str, duckdb.Error], InvalidError]
"""What an error is that comes of the statement itself, or of the files that it reads."""


def _failed(what: str, error: duckdb.Error) -> InvalidError:
    place = re.search(r"\n\nLINE \d+: (.*)", str(error))
    where = f' at "{place[1].strip()[:_SHOWN]}"' if place else ""
    return InvalidError(
        f"{what} failed{where}: {_first_lines(error)}. Correct the statement.", kind="sql-failed"
    )


def failed_on(tables: Callable[[], Sequence[str]]) -> Translation:
    """Returns how an error of a statement over `tables` is told: unknown names with what is there.

    DuckDB would propose a table of its own catalog, such as pg_description.
    """

    def translation(what: str, error: duckdb.Error) -> InvalidError:
        said = str(error)
        if missing := re.search(r"Table with name \"?([^\"]+?)\"? does not exist", said):
            return no_such_table(what, missing[1], tables())
        if missing := re.search(r'Referenced column "(.+?)" (?:was )?not found', said):
            near = re.findall(r'"([^"]+)"', said.partition("Candidate bindings:")[2].split("\n")[0])
            mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
            return InvalidError(
                f'{what} names column "{missing[1]}": expected a column of its tables. {mend}',
                kind="sql-failed",
                name=missing[1],
            )
        if missing := re.search(r"Function with name \"?([^\" ]+)\"? does not exist", said):
            near = re.findall(r'Did you mean "([^"]+)"', said)
            mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
            return InvalidError(
                f'{what} calls "{missing[1]}": expected a function of DuckDB. {mend}',
                kind="sql-failed",
                name=missing[1],
            )
        return _failed(what, error)

    return translation


def no_such_table(what: str, name: str, tables: Sequence[str]) -> InvalidError:
    """Returns the error of SQL that names a table which is not among `tables`."""
    near = get_close_matches(name.lower(), tables, n=1, cutoff=0.5)
    mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
    return InvalidError(
        f'{what} names table "{name}": expected one of {some_of(sorted(tables)) or "none"}. {mend}',
        kind="sql-failed",
        name=name,
    )


def damaged(what: str, error: duckdb.Error) -> InvalidError:
    """Returns the error of a file that cannot be read as Parquet."""
    return InvalidError(
        f"{what} cannot be read: {_first_lines(error)}. Restore the file from a backup.",
        kind="damaged-file",
    )


def _first_lines(error: duckdb.Error) -> str:
    said = str(error).strip().split("\n\nLINE ")[0].rstrip(".")
    return re.sub(r"^\w+(?: \w+)? Error: ", "", said)


@contextmanager
def translated(what: str, invalid: Translation = _failed) -> Iterator[None]:
    """Turns what DuckDB raises into errors of the seven families; `what` was being done."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnavailableError(
            f"{what} needs more memory or disk than allowed. Give it more, or make it smaller.",
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
            f"{what} could not read or write the disk. Make room on it, or repair it, then try "
            "again.",
            kind="disk-failed",
        ) from error
    except duckdb.Error as error:
        raise invalid(what, error) from error
