"""A contract as SQL over one staged batch: its good rows, its broken terms, its bad rows.

A staged batch is a relation whose columns bear the contract's names; a value is text where the file
is text, and null where the file has a null marker. A term is broken only when its predicate is
definitely true: a null breaks no term but `required`. A value fits a type only when the cast loses
nothing, except that decimal fractions become the nearest binary ones; text of no finite number
(nan, inf, 1e400) fits no float or double, and an integer has no exponent. A number in a key has no
superfluous zeros, as 0010001 would be the row 10001; in other columns they are told of. A typed NaN
lies in no range: it breaks `minimum` and `maximum`, and infinity breaks them as the order of
numbers has it.
All rows of a key that occurs twice, here or in the table already, break the key. Nothing is
executed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from instep.contracts.terms import BatchTerm, Bound, ColumnTerm, Contract, Metric
from instep.engines.conform import missing_within
from instep.engines.schema import Column, free_name, literal, quoted
from instep.engines.types import iceberg_column
from instep.errors import InvalidError
from instep.findings import Finding, Severity

TEXT = "VARCHAR"
_BYTES = "BLOB"

LEADING_ZEROS = "leading-zeros"
"""The kind of the warning that numbers of a file have zeros before them."""


@dataclass(frozen=True, slots=True)
class RowTerm:
    """A promise of every row; `broken` is a predicate over the typed batch."""

    name: str
    column: str
    sentence: str
    broken: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A staged batch: its SQL name and its columns with their SQL types, by the contract's names.

    `duplicates` names a relation of the keys that may not enter, when there are any. `typed` names
    a table of what `typed_table` selects, when there is one: with thousands of columns, planning
    each statement over the casts takes seconds.
    """

    relation: str
    types: Mapping[str, str]
    duplicates: str | None = None
    typed: str | None = None


def row_terms(contract: Contract, types: Mapping[str, str]) -> tuple[RowTerm, ...]:
    """Returns every row term of the contract except its key, columns in their order."""
    return tuple(
        RowTerm(f"{column.name}.{term}", column.name, f"{column.name} {sentence}", broken)
        for column in contract.columns
        if column.name in types
        for term, sentence, broken in _column_terms(
            column,
            types[column.name],
            _raw(contract, column.name),
            is_key=column.name in contract.key,
        )
    )


def good_rows(contract: Contract, batch: Batch) -> str:
    """Returns the SELECT of the rows that break no term, in the contract's types."""
    names = ", ".join(quoted(name) for name in _present(contract, batch))
    broken = _any(contract, batch)
    return f"SELECT {names} FROM ({_typed(contract, batch)}) WHERE ({broken}) IS NOT TRUE"


def typed_rows(contract: Contract, batch: Batch, as_numbers: Collection[str] = ()) -> str:
    """Returns the SELECT of all rows in the contract's types; what does not fit is null.

    The columns `as_numbers` are DOUBLE instead: in another unit whole numbers have fractions.
    """
    columns = ", ".join(
        f"TRY_CAST({_raw(contract, name)} AS DOUBLE) AS {quoted(name)}"
        if name in as_numbers
        else quoted(name)
        for name in _present(contract, batch)
    )
    return f"SELECT {columns} FROM ({_typed(contract, replace(batch, duplicates=None))})"


def typed_table(contract: Contract, batch: Batch, line: str) -> str:
    """Returns the SELECT of a table by which the rows can be judged without another cast.

    `line` is a column of the batch's relation.
    """
    return _typed(contract, batch, _as_it_came(contract, batch, line))


def broken_counts(contract: Contract, batch: Batch) -> str:
    """Returns the SELECT of one row: all rows, broken rows, then rows that break each term.

    The terms are those of `row_terms`, and the key last if it has duplicates.
    """
    broken = [_any(contract, batch), *(one for _, one in _predicates(contract, batch))]
    counts = ", ".join(_count_if(one) for one in broken)
    return f"SELECT count(*), {counts} FROM ({_typed(contract, batch)})"


def term_names(contract: Contract, batch: Batch) -> tuple[str, ...]:
    """Returns the names of the terms that `broken_counts` counts, in its order."""
    return tuple(name for name, _ in _predicates(contract, batch))


def quarantined_rows(contract: Contract, batch: Batch, line: str) -> str:
    """Returns the SELECT of the broken rows: line, names of the broken terms, the raw row as JSON.

    `line` is a column of the batch's relation.
    """
    at, text = _names_of_rows(contract)
    extra = _as_it_came(contract, batch, line)
    broken = ", ".join(
        f"CASE WHEN {predicate} THEN {literal(name)} END"
        for name, predicate in _predicates(contract, batch)
    )
    return (
        f"SELECT CAST({at} AS BIGINT) AS line, concat_ws(', ', {broken}) AS terms, "
        f"{text} AS raw FROM ({_typed(contract, batch, extra)}) WHERE {_any(contract, batch)}"
    )


def _as_it_came(contract: Contract, batch: Batch, line: str) -> str:
    """SQL of two columns: the line of each row, and the row as JSON."""
    raw = ", ".join(f"{literal(name)}: {quoted(name)}" for name in batch.types)
    at, text = _names_of_rows(contract)
    return f"{quoted(line)} AS {at}, CAST(to_json({{{raw}}}) AS {TEXT}) AS {text}"


def _names_of_rows(contract: Contract) -> tuple[str, str]:
    at, text = (quoted(free_name(name, contract.names)) for name in ("row:line", "row:raw"))
    return at, text


def duplicate_keys(contract: Contract, batch: Batch, existing: str | None = None) -> str:
    """Returns the SELECT of the keys that occur more than once, in the batch or with `existing`.

    Exact, and cheap where there are none: rows are grouped by a hash of their key first, and only
    rows of a repeated hash are compared. `existing` has columns named like the key's.
    """
    keys = ", ".join(quoted(name) for name in contract.key)
    h = free_name("h", contract.key)
    typed = _typed(contract, replace(batch, duplicates=None))
    found = (
        f"WITH keys AS (SELECT {keys} FROM ({typed}) WHERE {_whole_key(contract, batch)}), "
        f"repeated AS (SELECT hash({keys}) AS {h} FROM keys GROUP BY 1 HAVING count(*) > 1), "
        f"suspects AS (SELECT {keys} FROM keys SEMI JOIN repeated ON hash({keys}) = {h}) "
        f"SELECT {keys} FROM suspects GROUP BY {keys} HAVING count(*) > 1"
    )
    if existing is None:
        return found
    return f"{found} UNION SELECT {keys} FROM keys SEMI JOIN {quoted(existing)} USING ({keys})"


def text_numbers(contract: Contract, types: Mapping[str, str]) -> tuple[ColumnTerm, ...]:
    """Returns the columns outside the key whose numbers came as text."""
    return tuple(
        column
        for column in contract.columns
        if types.get(column.name) == TEXT and _is_number(column) and column.name not in contract.key
    )


def padded_values(
    contract: Contract, batch: Batch, columns: Sequence[ColumnTerm], figure: str
) -> str:
    """Returns the SELECT of one row: a figure of the texts of each column with superfluous zeros.

    They are texts that are read as numbers all the same; the figure is an aggregate, as count.
    """
    figures = []
    for column in columns:
        value = quoted(column.name) if batch.typed else _cast(column, TEXT)
        raw = _raw(contract, column.name) if batch.typed else quoted(column.name)
        read = f"CASE WHEN {value} IS NOT NULL THEN {raw} END"
        figures.append(f"{figure}(CASE WHEN {_is_padded(raw)} THEN {read} END)")
    return f"SELECT {', '.join(figures)} FROM {quoted(batch.typed or batch.relation)}"


def padded_finding(table: str, column: str, count: int, example: str) -> Finding:
    """Returns the warning that numbers of a column may be codes."""
    said = f"{count:,} values begin with 0"
    read = "are read as numbers; if they are codes"
    if count == 1:
        said, read = "1 value begins with 0", "is read as a number; if it is a code"
    return Finding(
        kind=LEADING_ZEROS,
        subject=f"table/{table}.{column}",
        severity=Severity.WARNING,
        message=f'{column}: {said} ("{example}") and {read}, make the column a string.',
        evidence={"column": column, "values": count, "example": example},
    )


def batch_counts(contract: Contract, batch: Batch) -> str | None:
    """Returns the SELECT of one row: all rows, then the count of each batch term that needs one."""
    if not contract.batch:
        return None
    counts = ", ".join(_count(contract, term) for term in contract.batch)
    return f"SELECT count(*), {counts} FROM ({_typed(contract, batch)})"


def batch_findings(contract: Contract, rows: int, counts: Sequence[int]) -> tuple[Finding, ...]:
    """Returns one finding that stops for each batch term that does not hold."""
    return tuple(
        Finding(
            kind="broken-batch-term",
            subject=f"table/{contract.table}",
            severity=Severity.STOP,
            message=f"{term.sentence}: found {count} in {rows} rows.",
            evidence={"term": term.sentence, "count": count, "rows": rows},
        )
        for term, count in zip(contract.batch, counts, strict=True)
        if not term.holds(count, rows)
    )


def _column_terms(
    column: ColumnTerm, source: str, raw: str, *, is_key: bool
) -> Iterator[tuple[str, str, str]]:
    value = quoted(column.name)
    misfit = _misfit(column, source, raw, is_key=is_key)
    if misfit:
        yield "type", f"is {column.type}", f"({raw} IS NOT NULL AND ({misfit}))"
    if column.required:
        yield "required", "is not null", f"({raw} IS NULL)"
    missing = missing_within(value, column.as_column())
    if missing:
        yield "fields", "has all its required fields", f"({missing})"
    if column.minimum:
        below = "<=" if column.minimum.exclusive else "<"
        word = "above" if column.minimum.exclusive else "at least"
        yield (
            "minimum",
            f"is {word} {column.minimum.value}",
            f"({value} {below} {_constant(column, column.minimum)}{_or_nan(column)})",
        )
    if column.maximum:
        above = ">=" if column.maximum.exclusive else ">"
        word = "below" if column.maximum.exclusive else "at most"
        yield (
            "maximum",
            f"is {word} {column.maximum.value}",
            f"({value} {above} {_constant(column, column.maximum)}{_or_nan(column)})",
        )
    if column.shortest is not None:
        sentence = f"has at least {column.shortest} characters"
        yield "minLength", sentence, f"(length({value}) < {column.shortest})"
    if column.longest is not None:
        sentence = f"has at most {column.longest} characters"
        yield "maxLength", sentence, f"(length({value}) > {column.longest})"
    if column.pattern is not None:
        matches = f"regexp_matches({value}, {literal(column.pattern)})"
        yield "pattern", f"matches {column.pattern}", f"(NOT {matches})"
    if column.values:
        allowed = ", ".join(f"CAST({literal(text)} AS {column.sql_type})" for text in column.values)
        yield "values", f"is one of {', '.join(column.values)}", f"({value} NOT IN ({allowed}))"


def _misfit(column: ColumnTerm, source: str, raw: str, *, is_key: bool) -> str | None:
    """The predicate of a value, `raw` as it came, that does not fit its type; None if all do."""
    tests = [_lossy(column, source, raw), _outside(column)]
    if is_key and source == TEXT and _is_number(column):
        tests.append(_is_padded(raw))
    return " OR ".join(test for test in tests if test) or None


def _outside(column: ColumnTerm) -> str | None:
    """The predicate of a value that DuckDB's type has and that of the column has not."""
    if column.type == "time":
        return f"{quoted(column.name)} = TIME '24:00:00'"
    is_time = column.type in ("date", "timestamp", "timestamptz")
    return f"NOT isfinite({quoted(column.name)})" if is_time else None


def _lossy(column: ColumnTerm, source: str, raw: str) -> str | None:
    """The predicate of a value that is another one in the column's type, or none."""
    value = quoted(column.name)
    target = column.sql_type
    if _is_free(source, target):
        return None
    if column.children:
        return _nested_misfit(column, source, raw)
    family = column.type.partition("(")[0]
    if source != TEXT:
        if family == "float" or (source, target) == (_BYTES, TEXT):
            return f"{value} IS NULL"
        return f"CAST({value} AS {source}) IS DISTINCT FROM {raw}"
    match family:
        case "int" | "long":
            # DuckDB rounds the text 1.5 to the integer 2, and reads 0x10, 1_000 and 1e1.
            is_whole = f"regexp_full_match({raw}, '[ ]*[+-]?[0-9]+([.]0*)?[ ]*')"
            return _unless_written_so(raw, value, f"NOT {is_whole}")
        case "decimal":
            scale = int(column.type.rpartition(",")[2].rstrip(")"))
            differs = f"{_has_more_places(raw, scale)} OR {_is_grouped(raw)}"
            return _unless_written_so(raw, value, differs)
        case "float" | "double":
            return f"{value} IS NULL OR {_is_grouped(raw)} OR {_is_rounded(raw, value)}"
        case "date" | "timestamp":
            # DuckDB drops the time of day, and the offset, without a word.
            exact = f"CAST(TRY_CAST({raw} AS TIMESTAMPTZ) AS TIMESTAMP)"
            differs = f"{exact} IS DISTINCT FROM CAST({value} AS TIMESTAMP)"
            return f"{value} IS NULL OR {differs} OR {_is_finer(raw)}"
        case "timestamptz" | "time":
            return f"{value} IS NULL OR {_is_finer(raw)}"
        case _:
            return f"{value} IS NULL"


def _nested_misfit(column: ColumnTerm, source: str, raw: str) -> str:
    """The predicate of a nested value that is not the same again when it is cast back."""
    value = quoted(column.name)
    if not _is_alike(source, column):
        return "true"
    return f"CAST({value} AS {source}) IS DISTINCT FROM {raw}"


def _is_alike(source: str, column: ColumnTerm) -> bool:
    """Tells whether a type is nested as a column is, so that a cast can be asked for."""
    try:
        return _are_alike(iceberg_column(source, column.name), column.as_column())
    except InvalidError:  # no table has such a type
        return False


def _are_alike(held: Column, wanted: Column) -> bool:
    if not held.is_nested and not wanted.is_nested:
        return True
    known = {child.name.lower(): child for child in held.children}
    shared = [
        (known[child.name.lower()], child)
        for child in wanted.children
        if child.name.lower() in known
    ]
    return held.type == wanted.type and bool(shared) and all(_are_alike(*two) for two in shared)


def _unless_written_so(raw: str, value: str, differs: str) -> str:
    """The predicate `differs`, asked only of text that is not how the value itself is written."""
    return (
        f"CASE WHEN {value} IS NULL THEN true WHEN CAST({value} AS {TEXT}) = {raw} THEN false "
        f"ELSE {differs} END"
    )


def _has_more_places(raw: str, scale: int) -> str:
    """The predicate of a decimal text, plain or with an exponent, with more than `scale` places.

    Zeros at the end are no places. Exact, where DuckDB's casts round without a word.
    """
    mantissa = f"regexp_extract({raw}, '^[^eE]*')"
    digits = f"regexp_replace({mantissa}, '[^0-9]', '', 'g')"
    fraction = f"regexp_replace(regexp_extract({mantissa}, '[.].*'), '[^0-9]', '', 'g')"
    exponent = f"coalesce(TRY_CAST(regexp_extract({raw}, '[eE](.*)', 1) AS BIGINT), 0)"
    zeros = f"(length({digits}) - length(rtrim({digits}, '0')))"
    places = f"length({fraction}) - {zeros} - {exponent}"
    return (
        f"(regexp_matches({raw}, '[.eE]') AND regexp_matches({mantissa}, '[1-9]') "
        f"AND {places} > {scale})"
    )


def _is_grouped(raw: str) -> str:
    """The predicate of a number such as 1_000, which DuckDB reads as 1000."""
    return f"contains({raw}, '_')"


def _is_number(column: ColumnTerm) -> bool:
    return column.type.partition("(")[0] in ("int", "long", "float", "double", "decimal")


def _is_padded(raw: str) -> str:
    """The predicate of text that begins with a superfluous zero, after a sign or blanks too."""
    # Most numbers are told by comparing their first letters, which costs less than a pattern does.
    return (
        f"CASE WHEN {raw} >= '00' THEN {raw} < '0:' "
        f"ELSE regexp_matches({raw}, '^[ ]*[+-]?0[0-9]') END"
    )


def _is_rounded(raw: str, value: str) -> str:
    """The predicate of a whole number whose digits a float does not hold, so of another number."""
    exact = f"TRY_CAST({raw} AS HUGEINT)"
    return (
        f"CASE WHEN abs({value}) >= {1 << 24} AND regexp_full_match({raw}, '[ ]*[+-]?[0-9]+[ ]*') "
        f"THEN TRY_CAST({value} AS HUGEINT) IS DISTINCT FROM {exact} ELSE false END"
    )


def _is_finer(raw: str) -> str:
    """The predicate of a time with more than microseconds, which DuckDB drops."""
    return rf"(contains({raw}, '.') AND regexp_matches({raw}, '[.][0-9]{{6}}[0-9]*[1-9]'))"


def _or_nan(column: ColumnTerm) -> str:
    """DuckDB orders NaN above all numbers."""
    return f" OR isnan({quoted(column.name)})" if column.type in ("float", "double") else ""


_FREE = {
    ("INTEGER", "BIGINT"),
    ("SMALLINT", "INTEGER"),
    ("SMALLINT", "BIGINT"),
    ("TINYINT", "INTEGER"),
    ("TINYINT", "BIGINT"),
    ("INTEGER", "DOUBLE"),
    ("FLOAT", "DOUBLE"),
    ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"),
    ("TIMESTAMP", "TIMESTAMPTZ"),
    ("DATE", "TIMESTAMP"),
    ("DATE", "TIMESTAMPTZ"),
}
"""Casts between SQL types that lose nothing; a time without a zone is UTC."""


def _is_free(source: str, target: str) -> bool:
    return source == target or (target == TEXT and source != _BYTES) or (source, target) in _FREE


def _constant(column: ColumnTerm, bound: Bound) -> str:
    return f"CAST({literal(bound.value)} AS {column.sql_type})"


def _raw(contract: Contract, name: str) -> str:
    """SQL of a column as it came, under a name that no column of the contract has."""
    return quoted(f"{_mark_of_raw(contract.names)}{name}")


@lru_cache(maxsize=64)
def _mark_of_raw(names: tuple[str, ...]) -> str:
    mark = "raw:"
    while any(name.lower().startswith(mark) for name in names):
        mark += ":"
    return mark


def _cast(column: ColumnTerm, source: str) -> str:
    target = column.sql_type
    if source == target:
        return quoted(column.name)
    if column.children and not _is_alike(source, column):
        return f"CAST(NULL AS {target})"
    if (source, target) == (_BYTES, TEXT):  # as a cast would write \xC3\xA9
        return f"TRY(decode({quoted(column.name)}))"
    cast = f"TRY_CAST({quoted(column.name)} AS {target})"
    if source == TEXT and column.type in ("float", "double"):
        return f"CASE WHEN isfinite({cast}) THEN {cast} END"
    return cast


def _typed(contract: Contract, batch: Batch, extra: str = "") -> str:
    """The batch with each column twice: as it came, and in the contract's type."""
    columns = ", ".join(
        f"{quoted(column.name)} AS {_raw(contract, column.name)}, "
        f"{_cast(column, batch.types[column.name])} AS {quoted(column.name)}"
        for column in contract.columns
        if column.name in batch.types
    )
    select = f"SELECT {columns}{', ' if extra else ''}{extra} FROM {quoted(batch.relation)}"
    if batch.typed is not None:
        select = f"SELECT * FROM {quoted(batch.typed)}"
    if batch.duplicates is None:
        return select
    met = quoted(free_name("key:met", contract.names))
    same = " AND ".join(f"typed.{quoted(name)} = twice.{quoted(name)}" for name in contract.key)
    return (
        f"SELECT *, {met} AND {_whole_key(contract, batch)} AS {_twice(contract)} FROM ("
        f"SELECT typed.*, twice.{quoted(contract.key[0])} IS NOT NULL AS {met} "
        f"FROM ({select}) AS typed LEFT JOIN {quoted(batch.duplicates)} AS twice ON {same})"
    )


def _whole_key(contract: Contract, batch: Batch) -> str:
    """The predicate of a row whose key columns all fit their types and are not null."""
    tests = []
    for column in _key_columns(contract):
        raw = _raw(contract, column.name)
        misfit = _misfit(column, batch.types[column.name], raw, is_key=True)
        tests.append(f"{raw} IS NOT NULL")
        tests.extend([f"NOT ({misfit})"] if misfit else [])
    return " AND ".join(tests)


def _predicates(contract: Contract, batch: Batch) -> list[tuple[str, str]]:
    found = [(term.name, term.broken) for term in row_terms(contract, batch.types)]
    if batch.duplicates is not None:
        found.append(("key.unique", _twice(contract)))
    return found


def _twice(contract: Contract) -> str:
    return quoted(free_name("key:twice", contract.names))


def _any(contract: Contract, batch: Batch) -> str:
    return " OR ".join(broken for _, broken in _predicates(contract, batch)) or "false"


def _present(contract: Contract, batch: Batch) -> list[str]:
    return [name for name in contract.names if name in batch.types]


def _key_columns(contract: Contract) -> Iterator[ColumnTerm]:
    for name in contract.key:
        column = contract.column(name)
        if column is not None:
            yield column


def _count_if(predicate: str) -> str:
    """Counts definite truths; DuckDB's own count is null where every case is unknown."""
    return f"coalesce(count_if({predicate}), 0)"


def _count(contract: Contract, term: BatchTerm) -> str:
    match term.metric:
        case Metric.ROWS:
            return "count(*)"
        case Metric.NULLS:
            return _count_if(f"{_raw(contract, term.columns[0])} IS NULL")
        case Metric.DUPLICATES:
            names = ", ".join(quoted(name) for name in term.columns)
            whole = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in term.columns)
            return f"count(*) FILTER ({whole}) - count(DISTINCT ROW({names})) FILTER ({whole})"
        case Metric.INVALID:
            name = quoted(term.columns[0])
            tests = []
            if term.values:
                column = contract.column(term.columns[0])
                type_ = column.sql_type if column else TEXT
                allowed = ", ".join(f"CAST({literal(text)} AS {type_})" for text in term.values)
                tests.append(f"{name} NOT IN ({allowed})")
            if term.pattern is not None:
                tests.append(f"NOT regexp_matches({name}, {literal(term.pattern)})")
            return _count_if(" OR ".join(tests))
