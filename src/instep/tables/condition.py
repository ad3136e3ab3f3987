"""What a condition is in SQL, and which files may hold a row that fulfils it, told by their bounds.

No row is read. Conditions joined by AND that compare a column with a constant are understood; for
all others every file may hold one. A file is left out only where its bounds prove that no row is
true.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from instep.engines.engine import ColumnStatistics, FileSet
from instep.engines.schema import UNTYPED, Column, Schema
from instep.errors import InvalidError
from instep.tables.partition import order_key
from instep.tables.read import DataFile

if TYPE_CHECKING:
    from sqlglot import exp

    from instep.engines.duckdb import DuckDB

Range = tuple[str | None, str | None]
"""From and to, both included, as texts of statistics; None is without end."""


def enclosed(where: str) -> str:
    """Returns a condition in parentheses, which it cannot leave, so that it can be denied as one.

    Raises:
        InvalidError (kind "sql-failed"): it is none, such as "true) or (true".
    """
    import duckdb

    try:
        duckdb.extract_statements(f"SELECT [{where}\n]")  # what leaves one pair stays in no other
    except duckdb.Error as error:
        raise InvalidError(
            f'The condition "{where}" cannot be read: {error}. Expected one SQL expression that is '
            "true or false of a row. Correct it.",
            kind="sql-failed",
        ) from None
    return f"({where}\n)"  # a comment may end it


def check_condition(engine: DuckDB, schema: Schema, condition: str) -> None:
    """Holds that a condition is true or false of a row, where DuckDB would take a number for it.

    Raises:
        InvalidError (kind "sql-failed").
    """
    source = engine.source(FileSet("none", (), schema))
    engine.describe(f"SELECT 1 FROM {source} WHERE {condition}")
    try:
        (found,) = engine.describe(f"SELECT {condition} AS fits FROM {source}").columns
        kind = found.full_type
    except InvalidError as error:
        if error.kind != "unsupported-type":
            raise
        kind = "no single value"
    if kind not in ("boolean", UNTYPED):
        raise InvalidError(
            f"The condition {condition.replace(chr(10), '')} is {kind}: expected one that is true "
            "or false of a row. Compare it with a value.",
            kind="sql-failed",
        )


def files_that_may_match(
    files: Sequence[DataFile], schema: Schema, where: str
) -> tuple[DataFile, ...]:
    """Returns the files that may hold a row for which the SQL condition `where` is true."""
    ranges = _ranges(schema, where)
    return tuple(file for file in files if all(_meets(file, column, one) for column, one in ranges))


def files_between(
    files: Sequence[DataFile], columns: Sequence[Column], others: Sequence[DataFile]
) -> tuple[DataFile, ...]:
    """Returns the files that may hold a row whose `columns` are as in a row of `others`."""
    ranges = [(column, _range_of(others, column)) for column in columns]
    return tuple(file for file in files if all(_meets(file, column, one) for column, one in ranges))


def statistics_of(file: DataFile, column: Column) -> ColumnStatistics | None:
    """Returns the statistics of a column in a file; None if it is not in it."""
    return next((one for one in file.columns if one.field_id == column.id), None)


def _range_of(files: Sequence[DataFile], column: Column) -> Range:
    found = [statistics_of(file, column) for file in files]
    lowers = [one.lower if one else None for one in found]
    uppers = [one.upper if one else None for one in found]
    return _extreme(column, lowers, min), _extreme(column, uppers, max)


def _extreme(column: Column, texts: Sequence[str | None], choose: Any) -> str | None:  # min or max
    known = [text for text in texts if text is not None]
    if len(known) < len(texts) or column.type in ("float", "double"):
        return None  # a float's text is not that of the double it may have become
    found: str = choose(known, key=lambda text: order_key(column.type, text))
    return found


def _meets(file: DataFile, column: Column, wanted: Range) -> bool:
    found = statistics_of(file, column)
    if found is None:
        return True  # not in this file: null, or its default
    if found.nulls == file.rows:
        return False
    if found.lower is None or found.upper is None or found.nans != 0 or column.is_nested:
        return True
    low, high = wanted
    kind = column.type
    return (low is None or order_key(kind, found.upper) >= order_key(kind, low)) and (  # type: ignore[operator]  # keys of one type
        high is None or order_key(kind, found.lower) <= order_key(kind, high)  # type: ignore[operator]  # as above
    )


def _ranges(schema: Schema, where: str) -> list[tuple[Column, Range]]:
    import sqlglot
    from sqlglot import exp

    try:
        parsed = sqlglot.parse_one(where, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return []  # DuckDB says what is wrong
    parts = list(parsed.flatten()) if isinstance(parsed, exp.And) else [parsed]
    return [found for part in parts if (found := _range(schema, part.unnest())) is not None]


def _range(schema: Schema, part: exp.Expr) -> tuple[Column, Range] | None:
    from sqlglot import exp

    if isinstance(part, exp.Between):
        ends = [part.args["low"], part.args["high"]]
    elif isinstance(part, (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE)):
        ends = [part.expression]
    else:
        return None
    column = _column(schema, part.this)
    texts = [_text(column, end) for end in ends] if column else [None]
    if column is None or None in texts:
        return None
    match part:
        case exp.GT() | exp.GTE():
            return column, (texts[0], None)
        case exp.LT() | exp.LTE():
            return column, (None, texts[0])
        case _:
            return column, (texts[0], texts[-1])


def _column(schema: Schema, found: exp.Expr) -> Column | None:
    from sqlglot import exp

    if not isinstance(found, exp.Column) or found.table:
        return None
    return next((one for one in schema.columns if one.name.lower() == found.name.lower()), None)


def _text(column: Column, found: exp.Expr) -> str | None:
    """Returns a constant as statistics would have it; None where that would not be exact."""
    from sqlglot import exp

    if isinstance(found, exp.Cast) and found.to.is_type("date") and column.type == "date":
        found = found.this
    sign = ""
    if isinstance(found, exp.Neg):
        sign, found = "-", found.this
    if not isinstance(found, exp.Literal):
        return None
    text = sign + str(found.this)
    try:
        if column.type in ("int", "long") and not found.is_string:
            return str(int(text))
        if column.type.startswith("decimal") and not found.is_string:
            return str(Decimal(text))
        if column.type == "string" and found.is_string:
            return text
        if column.type == "date" and found.is_string:
            return date.fromisoformat(text).isoformat()
    except (ValueError, InvalidOperation):
        return None
    return None
