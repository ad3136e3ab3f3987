"""Answers what one side of a merge did to the rows of the base.

Only the files that it dropped and those that it added are read: rows in all others are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from dataclasses import replace as renamed
from functools import partial
from typing import TYPE_CHECKING

from instep.engines.conform import any_within
from instep.engines.engine import FileSet
from instep.engines.reading import paths_sql
from instep.engines.schema import Column, Schema, literal
from instep.tables.apart import Compared, Sides, find_apart, forget_apart
from instep.tables.columns import paths
from instep.tables.key_ranges import Candidate, ranges_of_key
from instep.tables.merge_columns import Dropped
from instep.tables.merge_definition import MergedDefinition
from instep.tables.row_merge import DefinitionConflict
from instep.tables.same_bytes import columns_apart

if TYPE_CHECKING:
    from instep.engines.duckdb import DuckDB


@dataclass(frozen=True, slots=True)
class Side:
    """What one side did to the files of the base: those that went, and those that came."""

    before: FileSet
    after: FileSet

    @property
    def is_whole(self) -> bool:
        """Says whether its new files can be taken as they are, without rows deleted in them."""
        return not self.after.deletes and not set(self.before.files) & set(self.after.files)


def find_apart_of(
    engine: DuckDB, columns: Sequence[Column], keys: int, side: Side, *, only_given: bool = False
) -> None:
    """Makes `apart` of what a side did to its files; the first columns are the keys, if any.

    With `only_given` a new file has null, not the default, in what it lacks apart from the key.
    """
    given = list(columns)
    if only_given:
        given[keys:] = map(_without_defaults, columns[keys:])
    before = renamed(side.before, name="before", schema=numbered(columns))
    after = renamed(side.after, name="after", schema=numbered(given))
    engine.view(before)
    engine.view(after)
    compared = tuple(Compared(one.sql_type, n < keys) for n, one in enumerate(columns))
    candidates = [
        Candidate(n, (one.type, one.type), one.sql_type, (one.id, one.id))
        for n, one in enumerate(columns[: keys or len(columns)])
    ]
    cut = partial(ranges_of_key, engine, (before, after), "*", candidates)
    find_apart(engine, Sides("before", "after", compared), cut)


def values_apart(engine: DuckDB, columns: Sequence[Column], keys: int, side: Side) -> Sequence[int]:
    """Returns the places of the columns in which a row of the side's files may be another.

    The first columns, so many as `keys` says, are those of the key, and not among them.
    """
    every = range(keys, len(columns))
    if not side.before.files or side.before.deletes or side.after.deletes:
        return every
    for one in (side.before, side.after):
        engine.view(renamed(one, name="compared", schema=numbered(columns)))
    ids = [column.id for column in columns]
    apart = columns_apart(engine, side.before.files, side.after.files, ids[:keys], ids[keys:])
    return every if apart is None else [n for n in every if ids[n] in apart]


def left_by_rows(
    engine: DuckDB, keys: Sequence[Column], merged: MergedDefinition, sides: tuple[Side, Side]
) -> tuple[DefinitionConflict, ...]:
    """Returns where a merged definition and the rows that one side changed do not go together."""
    lost = _lost_in_files(engine, keys, merged.kept, sides)
    given = _given_where_dropped(engine, keys, merged.dropped, sides)
    return (*lost, *given, *_null_where_required(engine, keys, merged.schema, sides))


def _lost_in_files(
    engine: DuckDB, keys: Sequence[Column], kept: Sequence[Dropped], sides: tuple[Side, Side]
) -> tuple[DefinitionConflict, ...]:
    """Returns what shall stay though one side dropped it and then wrote rows of the base anew.

    They have no values in it any more, while the rows of the other side have.
    """
    found = []
    for one in kept:
        side = sides[0] if one.by_ours else sides[1]
        if _has_rows_without(engine, keys, one.column.id, side):
            lost = "dropped, and rows written anew without it"
            texts = (lost, _said(one.column)) if one.by_ours else (_said(one.column), lost)
            what = f'column "{one.path}"'
            found.append(DefinitionConflict(what, _said(one.base), *texts, by_side=False))
    return tuple(found)


def _has_rows_without(engine: DuckDB, keys: Sequence[Column], field_id: int, side: Side) -> bool:
    """Says whether a new file without a field may have rows of the files that went.

    By their keys; without any each such file may.
    """
    new = side.after.only(set(side.after.files) - set(side.before.files), "new")
    if not side.before.files or not new.files:
        return False
    if keys:
        new = renamed(new, schema=numbered(keys))
        engine.view(renamed(side.before, name="before", schema=new.schema))
    engine.view(new)
    paths = {engine.at_hand(path): path for path in new.files}
    having = engine.run(
        f"SELECT DISTINCT file_name FROM parquet_schema({paths_sql(paths)}) "
        f"WHERE field_id = {field_id}"
    )
    lacking = new.only(set(new.files) - {paths[path] for (path,) in having})
    if not keys or not lacking.files:
        return bool(lacking.files)
    same = " AND ".join(f"b.c{n} IS NOT DISTINCT FROM n.c{n}" for n in range(len(keys)))
    source = engine.source_of_some(new, lacking.files)
    return bool(engine.run(f"SELECT 1 FROM {source} n SEMI JOIN before b ON {same} LIMIT 1"))


def _said(column: Column) -> str:
    return f'"{column.name}" {column.full_type}'


def _given_where_dropped(
    engine: DuckDB, keys: Sequence[Column], dropped: Sequence[Dropped], sides: tuple[Side, Side]
) -> tuple[DefinitionConflict, ...]:
    """Returns what one side dropped, while the other gave rows other values in it.

    Without keys it is no other value if a row of the same values went.
    """
    counts = [_rows_given(engine, keys, [one.column.id for one in dropped], side) for side in sides]
    return tuple(
        _conflict(f'column "{one.path}"', one.column.full_type, found, ("changed", "dropped"))
        for one in dropped
        if any(found := [side.get(one.column.id, 0) for side in counts])
    )


def _null_where_required(
    engine: DuckDB, keys: Sequence[Column], schema: Schema, sides: tuple[Side, Side]
) -> tuple[DefinitionConflict, ...]:
    """Returns what one side made required, while the other gave rows null in it."""
    counts = []
    for side in sides:
        held = {field.id for field in side.after.schema.fields() if field.required}
        required = [one.id for one in schema.fields() if one.required and one.id not in held]
        counts.append(_counted(engine, keys, schema, required, _is_made_null, side))
    return tuple(
        _conflict(f'required of column "{path}"', "not required", found, ("null", "required"))
        for path, field in paths(schema.columns)
        if any(found := [side.get(field.id, 0) for side in counts])
    )


def _conflict(
    what: str, base: str, rows: Sequence[int], words: tuple[str, str]
) -> DefinitionConflict:
    """`rows` are those of both sides; `words` say what became of them, and what where none did."""
    ours, theirs = (f"{words[0]} in {count} rows" if count else words[1] for count in rows)
    return DefinitionConflict(what, base, ours, theirs, by_side=False)


def _rows_given(
    engine: DuckDB, keys: Sequence[Column], dropped: Sequence[int], side: Side
) -> dict[int, int]:
    """Returns, by field that the side still has, in how many rows it gave another value."""
    return _counted(engine, keys, side.after.schema, dropped, _is_given, side, only_given=True)


def _is_given(n: int, column: Column, field_id: int) -> str:
    has = any_within(
        f"n{n}", column, lambda value, one: f"{value} IS NOT NULL" if one.id == field_id else ""
    )
    values = (_value_of(f"{side}{n}", column, field_id) for side in "on")
    return f"{' IS DISTINCT FROM '.join(values)} AND {has}"


def _is_made_null(n: int, column: Column, field_id: int) -> str:
    was, now = (
        any_within(
            f"{side}{n}",
            column,
            lambda value, one: f"{value} IS NULL" if one.id == field_id else "",
        )
        for side in "on"
    )
    is_new = f"change = 'added' OR (change = 'changed' AND NOT coalesce({was}, false))"
    return f"{now} AND ({is_new})"


def _counted(
    engine: DuckDB,
    keys: Sequence[Column],
    schema: Schema,
    wanted: Sequence[int],
    condition: Callable[[int, Column, int], str],
    side: Side,
    *,
    only_given: bool = False,
) -> dict[int, int]:
    """Returns, by those fields of `schema` that are wanted, how many rows apart meet a condition.

    It is given the place of the column, the column, and the field. Only these fields are read.
    """
    others = [one for one in schema.columns if all(one.id != key.id for key in keys)]
    columns = [*keys, *(_only(one, wanted) for one in others if _has_any(one, wanted))]
    conditions = {
        field.id: condition(n, column, field.id)
        for n, column in enumerate(columns)
        for field in column.fields()
        if field.id in wanted
    }
    if not conditions:
        return {}
    find_apart_of(engine, columns, len(keys), side, only_given=only_given)
    counts = ", ".join(f"count(*) FILTER ({one})" for one in conditions.values())
    (found,) = engine.run(f"SELECT {counts} FROM apart")
    forget_apart(engine)
    return dict(zip(conditions, found, strict=True))


def _has_any(column: Column, wanted: Collection[int]) -> bool:
    return any(field.id in wanted for field in column.fields())


def _only(column: Column, wanted: Collection[int]) -> Column:
    """A column with only those fields of its structs that are wanted, or lead to one that is."""
    if column.id in wanted:
        return column
    is_struct = column.type == "struct"
    children = tuple(
        _only(child, wanted) if _has_any(child, wanted) else child
        for child in column.children
        if not is_struct or _has_any(child, wanted)
    )
    return renamed(column, children=children)


def _value_of(value: str, column: Column, field_id: int, depth: int = 0) -> str:
    """SQL of what a value of `column` has in a field: in a list or map, one for each element."""
    if column.id == field_id:
        return value
    child = next(one for one in column.children if _has_any(one, [field_id]))
    each = f"e{depth}"
    match column.type:
        case "struct":
            inner = f"struct_extract({value}, {literal(child.name)})"
            return _value_of(inner, child, field_id, depth)
        case "map":
            inner = _value_of(f"{each}.{child.name}", child, field_id, depth + 1)
            entry = f"{{key: {each}.key, value: {inner}}}"
            return f"list_transform(map_entries({value}), lambda {each}: {entry})"
        case _:
            inner = _value_of(each, child, field_id, depth + 1)
            return f"list_transform({value}, lambda {each}: {inner})"


def numbered(columns: Sequence[Column]) -> Schema:
    return Schema(tuple(renamed(one, name=f"c{n}") for n, one in enumerate(columns)))


def _without_defaults(column: Column) -> Column:
    children = tuple(map(_without_defaults, column.children))
    return renamed(column, initial_default=None, children=children)
