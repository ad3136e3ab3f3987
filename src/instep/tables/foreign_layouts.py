"""Answers whether the columns of a table can be read from files that others wrote.

A layout is how a Parquet file describes its columns, their ids and types: one file of each is
looked at, by the engine that will read it. What fitted once is not asked again, since a session of
the engine takes as long as a small commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from instep.engines.engine import FileSet
from instep.engines.reading import paths_sql
from instep.engines.schema import Schema
from instep.errors import InvalidError

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB

_KEPT_LAYOUTS = 4096
"""So many are remembered: the tables of a server, some layouts each, in a few megabytes."""

_fitting: set[tuple[str, Schema]] = set()

_WIDER = {"int": ("UINTEGER", "BIGINT", "UBIGINT"), "long": ("UBIGINT",)}
"""DuckDB's types that hold more than a column, which engines read until a value is too large."""


def check_layouts(root: Path, schema: Schema, files: Mapping[str, Path]) -> None:
    """Holds that files, one for each layout, can be read as `schema`, whatever values they hold.

    Raises:
        InvalidError (kind "type-mismatch", "unsupported-type").
    """
    new = {layout: str(path) for layout, path in files.items() if (layout, schema) not in _fitting}
    if not new:
        return
    from instep.engines.duckdb import DuckDB

    with DuckDB(root / "staging") as engine:
        engine.source(FileSet("new files", tuple(new.values()), schema))
        for path in new.values():
            _check_integers(engine, path, schema)
    if len(_fitting) + len(new) > _KEPT_LAYOUTS:
        _fitting.clear()
    _fitting.update((layout, schema) for layout in new)


def _check_integers(engine: DuckDB, path: str, schema: Schema) -> None:
    kinds = schema.primitive_types()
    held = engine.connection.execute(
        "SELECT field_id, name, duckdb_type "
        f"FROM parquet_schema({paths_sql([engine.at_hand(path)])}) WHERE field_id IS NOT NULL"
    ).fetchall()
    for field_id, name, held_type in held:
        kind = kinds.get(field_id, "")
        if held_type in _WIDER.get(kind, ()):
            raise InvalidError(
                f'File {path} holds column "{name}" as {held_type}: expected {kind}, which not '
                "every such number fits. Write the file again with the table's type.",
                kind="type-mismatch",
                path=path,
            )
