"""Answers how SQL reads files: with the columns that are in them, and no others.

DuckDB takes a folder called `name=value` above a file for a column, and a lake may lie below one.
All SQL that reads files is made here.
"""

from __future__ import annotations

from collections.abc import Iterable

from instep.engines.schema import literal


def paths_sql(paths: Iterable[str]) -> str:
    """Returns an SQL list of files."""
    return f"[{', '.join(literal(path) for path in paths)}]"


def parquet_sql(paths: Iterable[str], *options: str) -> str:
    """Returns SQL, to stand after FROM, of the rows of Parquet files."""
    return _read("read_parquet", paths, options)


def csv_sql(path: str, *options: str) -> str:
    """Returns SQL, to stand after FROM, of the rows of a CSV file."""
    return _read("read_csv", [path], options)


def _read(function: str, paths: Iterable[str], options: Iterable[str]) -> str:
    given = ", ".join([paths_sql(paths), "hive_partitioning = false", *options])
    return f"{function}({given})"
