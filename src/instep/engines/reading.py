"""Answers how SQL reads files: these alone, with the columns that are in them, and no others.

DuckDB takes a folder called `name=value` above a file for a column, and a lake may lie below one;
it takes `*` in a path for any text, and folders of partitions are called by values. All SQL that
reads files is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from instep.engines.schema import literal


def paths_sql(paths: Iterable[str]) -> str:
    """Returns an SQL list of files; DuckDB tells of each under its path as it was given."""
    return f"[{', '.join(literal(alone(path)) for path in paths)}]"


def alone(path: str) -> str:
    """Returns the pattern, as DuckDB reads paths, that only this path matches."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


def parquet_sql(paths: Iterable[str], *options: str) -> str:
    """Returns SQL, to stand after FROM, of the rows of Parquet files."""
    return _read("read_parquet", paths, options)


def csv_sql(path: str, *options: str) -> str:
    """Returns SQL, to stand after FROM, of the rows of a CSV file."""
    return _read("read_csv", [path], options)


def _read(function: str, paths: Iterable[str], options: Iterable[str]) -> str:
    given = ", ".join([paths_sql(paths), "hive_partitioning = false", *options])
    return f"{function}({given})"
