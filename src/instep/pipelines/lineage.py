"""What a step's SQL reads and writes: tables, and for each output column its input columns.

A step is one `select` over tables by name. Whatever else could reach it - a file, the network, a
clock, randomness, a setting - is refused here, by name and line, before anything runs.
Reading SQL costs half a second of imports, so `load_lineage` keeps what it found, by the digest
of the SQL, for as long as the columns of the inputs are the same.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.canonical import Json, digest_of
from instep.errors import InvalidError

if TYPE_CHECKING:
    from sqlglot import exp

_VERSION = "4"
"""Raise it when this module finds something else in the same SQL."""

CLOCKS = frozenset(
    "now today current_timestamp current_date current_time current_datetime localtime "  # noqa: SIM905
    "localtimestamp current_localtime current_localtimestamp get_current_timestamp "
    "get_current_time transaction_timestamp sysdate current_timestamp_ltz".split()
)
RANDOM = frozenset(
    "random rand randn uuid gen_random_uuid uuidv4 uuidv7 setseed generate_uuid".split()  # noqa: SIM905
)
SESSION = frozenset(
    "current_setting getvariable getenv current_database current_catalog current_schema "  # noqa: SIM905
    "current_schemas current_query current_query_id current_connection_id current_transaction_id "
    "current_user session_user user txid_current version in_search_path nextval currval setval "
    "sleep_ms stats vector_type write_log pg_backend_pid".split()
)
FILES = re.compile(
    r"(read_|scan_|.*_scan(_|$)|parquet_|sniff_|glob$|st_read|sqlite_|postgres_|mysql_|iceberg_|"
    r"delta_|http|write_)"
)
TABLE_FUNCTIONS = frozenset(
    ["generate_series", "range", "unnest", "explode", "explode_outer", "posexplode"]
)
"""Table functions whose rows follow from their arguments alone."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One way in which a row of the output comes about: the tables of which it is made.

    Of each table in `always` a row takes part, and of each in `maybe` there may be one. A table
    that is in both takes part with several of its rows.
    """

    always: frozenset[str]
    maybe: frozenset[str] = frozenset()

    def __and__(self, other: Rows) -> Rows:
        both = self._all & other._all
        return Rows(self.always | other.always, self.maybe | other.maybe | both)

    @property
    def _all(self) -> frozenset[str]:
        return self.always | self.maybe

    def perhaps_with(self, others: Iterable[Rows]) -> Rows:
        """Returns these rows where those of `others` are only joined if there are any."""
        found = frozenset[str]().union(*(other._all for other in others))
        return Rows(self.always, self.maybe | found)

    def grouped_by(self, tables: frozenset[str]) -> Rows:
        """Returns what groups are, whose keys are columns of `tables`."""
        always = self.always & tables if tables else self.always
        return Rows(always, self.maybe | (self.always - always))

    def to_json(self) -> dict[str, Json]:
        return {"always": sorted(self.always), "maybe": sorted(self.maybe)}


@dataclass(frozen=True, slots=True)
class Lineage:
    """`columns` maps each output column to the "table.column" it is made of.

    `reads` are all columns that matter, those that only join or filter too. Names of output
    columns are in lower case. `copies` names for an output column the "table.column" that it is as
    it is; `rows` are the ways in which a row of the output comes about.
    """

    tables: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    reads: tuple[str, ...]
    copies: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Rows, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "tables": list(self.tables),
            "columns": {name: list(inputs) for name, inputs in self.columns.items()},
            "reads": list(self.reads),
            "copies": dict(self.copies),
            "rows": [one.to_json() for one in self.rows],
        }


SchemaOf = Callable[[str], Sequence[str] | None]
"""Gives the column names of a table, or None where there is none."""


def load_lineage(
    folder: Path, sql: str, path: str, columns_of: SchemaOf, known: Callable[[], Sequence[str]]
) -> Lineage:
    """Returns the lineage of `sql`, kept in `folder` from an earlier look where that still holds.

    Raises:
        InvalidError: as `analyse`.
    """
    file = folder / f"{hashlib.sha256(f'{_VERSION}{sql}'.encode()).hexdigest()}.json"
    kept = _kept(file, columns_of)
    if kept is not None:
        return kept
    found = analyse(sql, path, columns_of, known)
    folder.mkdir(parents=True, exist_ok=True)
    body = {**found.to_json(), "schemas": _schemas(found.tables, columns_of)}
    temporary = file.with_suffix(f".{hashlib.sha256(path.encode()).hexdigest()[:8]}.tmp")
    temporary.write_text(json.dumps(body), encoding="utf-8")
    temporary.rename(file)
    return found


def analyse(
    sql: str, path: str, columns_of: SchemaOf, known: Callable[[], Sequence[str]] = tuple
) -> Lineage:
    """Returns what `sql` reads and makes; `path` is what messages call it, `known` all tables.

    Raises:
        InvalidError (kind "bad-sql"): it cannot be read, or its columns cannot be followed.
        InvalidError (kind "not-a-select"): it is not one select.
        InvalidError (kinds "sql-reads-file", "sql-reads-clock", "sql-random",
            "sql-reads-session"): something else than tables would reach it.
        InvalidError (kinds "no-such-table", "no-such-column").
    """
    tree = parse_select(sql, path)
    refuse_outside(tree, sql, path)
    tables = tables_of(tree, path)
    schemas: dict[str, Sequence[str]] = {}
    for name, place in tables.items():
        columns = columns_of(name)
        if columns is None:
            raise _unknown(path, place, "Table", name, known(), "no-such-table")
        schemas[name] = columns
    return _follow(tree, path, schemas)


def parse_select(sql: str, path: str) -> exp.Query:
    """Returns the one select that `sql` is.

    Raises:
        InvalidError (kinds "bad-sql", "not-a-select").
    """
    import sqlglot
    from sqlglot import errors, exp

    try:
        statements = [one for one in sqlglot.parse(sql, read="duckdb") if one is not None]
    except (errors.ParseError, errors.TokenError) as error:
        raise _bad_sql(path, error) from None
    if len(statements) == 1 and isinstance(statements[0], exp.Query):
        return statements[0]
    what = f"{len(statements)} statements" if len(statements) != 1 else statements[0].key.upper()
    raise InvalidError(
        f"{path}:1: the step's SQL is {what}: expected one select over tables by name. "
        "Write one select; Instep writes its result.",
        kind="not-a-select",
        path=path,
    )


def check_condition(condition: str, name: str) -> None:
    """Holds that a condition on rows depends on nothing but them; `name` is for messages.

    Raises: as `parse_select` and `refuse_outside`.
    """
    sql = f"select 1 from one where ({condition}\n)"
    refuse_outside(parse_select(sql, name), sql, name)


def refuse_outside(tree: exp.Expr, sql: str, path: str) -> None:
    """Refuses what is not a table: files, network, clocks, randomness, settings.

    `tree` is what `sql` was read as.

    Raises:
        InvalidError (kinds "sql-reads-file", "sql-reads-clock", "sql-random",
            "sql-reads-session", "bad-sql").
    """
    from sqlglot import exp

    for node in tree.walk():
        if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
            _refuse_table_function(node, sql, path)
        if isinstance(node, exp.Func):
            kind = next(filter(None, (_refused(node, name) for name in _function_names(node))), "")
            if kind:
                written, line = _written(node, sql)
                raise _outside(path, line, written, kind)
        if isinstance(node, exp.TableSample) and node.args.get("seed") is None:
            line = _first(sql, ("sample", "tablesample"))[1]
            raise _outside(path, line, "a sample without a seed", "sql-random")
        if isinstance(node, exp.Columns):
            line = _first(sql, ("columns",))[1]
            raise _outside(path, line, "COLUMNS(...)", "bad-sql", "columns by name")
        if isinstance(node, exp.Parameter | exp.Placeholder):
            what = f"parameter {node.sql('duckdb')}"
            raise _outside(path, _first(sql, ("$", "?", ":"))[1], what, "sql-reads-session")


def tables_of(tree: exp.Expr, path: str) -> dict[str, int]:
    """Returns the tables that a select reads, each with the line where it is first named.

    Raises:
        InvalidError (kind "sql-reads-file"): a name is a path or lies in another database.
    """
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    found: dict[str, int] = {}
    for scope in traverse_scope(tree):
        for source in scope.sources.values():
            if not isinstance(source, exp.Table) or not isinstance(source.this, exp.Identifier):
                continue
            if source.args.get("db") is not None or not re.fullmatch(r"\w+", source.name):
                name = ".".join(part.name for part in source.parts)
                raise _outside(path, _line(source), f'"{name}"', "sql-reads-file")
            found.setdefault(source.name.lower(), _line(source))
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _follow(tree: exp.Query, path: str, schemas: Mapping[str, Sequence[str]]) -> Lineage:
    from sqlglot import errors
    from sqlglot.lineage import lineage as trace
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    types: dict[str, object] = {
        table: dict.fromkeys(columns, "UNKNOWN") for table, columns in schemas.items()
    }
    try:
        qualified = qualify(tree.copy(), schema=types, dialect="duckdb")
        scope = build_scope(qualified)
        rows = tuple(_rows(scope, frozenset(schemas)))
        names = [name for name in qualified.named_selects if name != "*"]
        traced = {name.lower(): trace(name, qualified, types, scope=scope) for name in names}
    except errors.SqlglotError as error:
        raise _unresolved(tree, path, schemas, error) from None
    copies = {name: _copied(node, schemas) for name, node in traced.items()}
    return Lineage(
        tuple(schemas),
        {name: _leaves(node, schemas) for name, node in traced.items()},
        _all_columns(qualified, schemas),
        {name: copied for name, copied in copies.items() if copied},
        rows,
    )


def _leaves(node: Any, schemas: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    from sqlglot import exp

    found = {
        f"{one.source.name.lower()}.{_bare(one.name)}"
        for one in node.walk()
        if isinstance(one.expression, exp.Table) and one.source.name.lower() in schemas
    }
    return tuple(sorted(found))


def _copied(node: Any, schemas: Mapping[str, Sequence[str]]) -> str:  # SQLGlot leaves it open
    """Returns the "table.column" that an output column is as it is; empty where it is computed."""
    from sqlglot import exp

    if isinstance(node.expression, exp.Table):
        table = node.source.name.lower()
        return f"{table}.{_bare(node.name)}" if table in schemas else ""
    if not isinstance(node.expression.unalias(), exp.Column):
        return ""
    found = {_copied(one, schemas) for one in node.downstream}
    return found.pop() if len(found) == 1 else ""


def _rows(scope: Any, tables: frozenset[str]) -> list[Rows]:  # SQLGlot leaves it open
    """Returns the ways in which a row of a scope comes about, each once."""
    from sqlglot import exp

    if isinstance(scope, exp.Table):
        return [Rows(frozenset({scope.name.lower()} & tables))]
    if isinstance(scope.expression, exp.SetOperation):
        parts = scope.set_operation_scopes
        if isinstance(scope.expression, exp.Except | exp.Intersect):
            parts = parts[:1]
        return _once(row for part in parts for row in _rows(part, tables))
    if not isinstance(scope.expression, exp.Select):
        named = {one.name.lower() for one in scope.expression.find_all(exp.Table)}
        return [Rows(frozenset(), frozenset(named & tables))]
    select = scope.expression
    rows = _joined(select.args.get("from_"), select.args.get("joins"), scope, tables)
    group = select.args.get("group")
    if group is None and _is_aggregate(select):
        return [Rows(frozenset())]
    if group is not None or select.args.get("distinct") is not None:
        keys = list(group.expressions) if group is not None else []
        if not keys:
            keys = [one for one in select.expressions if not one.find(exp.AggFunc)]
        by = frozenset(name for key in keys for name in _tables_behind(key, scope))
        rows = [row.grouped_by(by & tables) for row in rows]
    return _once(rows)


def _joined(
    first: Any,
    joins: Any,
    scope: Any,
    tables: frozenset[str],  # SQLGlot leaves them open
) -> list[Rows]:
    """Returns the rows of FROM, or of what stands in parentheses there, with all of its joins."""
    rows = _rows_of(first.this, scope, tables) if first is not None else [Rows(frozenset())]
    for join in joins or ():
        others = _rows_of(join.this, scope, tables)
        side, kind = (join.side or "").upper(), (join.kind or "").upper()
        with_left = [row.perhaps_with(others) for row in rows]
        with_right = [other.perhaps_with(rows) for other in others]
        if (join.method or "").upper() == "POSITIONAL":
            side = "FULL"
        if kind in ("SEMI", "ANTI"):
            continue
        if side == "FULL":
            rows = with_left + with_right
        elif side == "LEFT":
            rows = with_left
        elif side == "RIGHT":
            rows = with_right
        else:
            rows = [row & other for row in rows for other in others]
        rows = _once(rows)
    return rows


def _rows_of(item: Any, scope: Any, tables: frozenset[str]) -> list[Rows]:  # SQLGlot leaves it open
    from sqlglot import exp

    if isinstance(item, exp.Subquery) and isinstance(item.this, exp.Table):
        return _joined(item, item.this.args.get("joins"), scope, tables)
    source = scope.sources.get(item.alias_or_name)
    if source is None:
        named = {one.name.lower() for one in item.find_all(exp.Table)}
        return [Rows(frozenset(), frozenset(named & tables))]
    return _rows(source, tables)


def _once(rows: Iterable[Rows]) -> list[Rows]:
    return list(dict.fromkeys(rows))


def _is_aggregate(select: exp.Select) -> bool:
    """Says whether a select without GROUP BY makes one row of all, which is of no table's rows."""
    from sqlglot import exp

    for column in select.expressions:
        for node in column.walk(prune=lambda one: isinstance(one, exp.Query)):
            if not isinstance(node, exp.AggFunc):
                continue
            while isinstance(node.parent, exp.Filter | exp.IgnoreNulls | exp.RespectNulls):
                node = node.parent
            if not (isinstance(node.parent, exp.Window) and node.parent.this is node):
                return True
    return False


def _tables_behind(expression: Any, scope: Any) -> Iterator[str]:  # SQLGlot leaves it open
    """Gives the tables of whose columns an expression is made, through subqueries."""
    from sqlglot import exp

    for column in expression.find_all(exp.Column):
        source = scope.sources.get(column.table)
        if isinstance(source, exp.Table):
            yield source.name.lower()
        elif source is not None:
            for part in source.set_operation_scopes or [source]:
                for made in getattr(part.expression, "selects", ()):
                    if made.alias_or_name == column.name:
                        yield from _tables_behind(made, part)


def _bare(name: str) -> str:
    return name.rpartition(".")[2].strip('"').lower()


def _all_columns(qualified: exp.Expr, schemas: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    if _takes_rows_whole(qualified):
        names = (f"{table}.{name.lower()}" for table in schemas for name in schemas[table])
        return tuple(sorted(names))
    found: set[str] = set()
    for scope in traverse_scope(qualified):
        for column in scope.columns:
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table) and source.name.lower() in schemas:
                found.add(f"{source.name.lower()}.{column.name.lower()}")
    return tuple(sorted(found))


def _takes_rows_whole(qualified: exp.Expr) -> bool:
    """Says whether a row is one value, or columns go by their place: then all of them matter."""
    from sqlglot import exp

    return any(
        isinstance(node, exp.TableColumn)
        or (isinstance(node, exp.Column) and isinstance(node.this, exp.Star))
        or (isinstance(node, exp.Table) and bool(node.alias_column_names))
        for node in qualified.walk()
    )


def _refuse_table_function(node: exp.Table, sql: str, path: str) -> None:
    if any(name in TABLE_FUNCTIONS for name in _function_names(node.this)):
        return
    written, line = _written(node.this, sql)
    raise _outside(path, line, written, "sql-reads-file")


def _refused(node: exp.Func, name: str) -> str:
    """Returns for which kind of error a function is refused; empty if it is not."""
    if name in CLOCKS or (name == "age" and len(_arguments(node)) == 1):
        return "sql-reads-clock"
    if name in RANDOM:
        return "sql-random"
    if name in SESSION:
        return "sql-reads-session"
    return "sql-reads-file" if FILES.match(name) else ""


def _written(node: Any, sql: str) -> tuple[str, int]:
    """Returns a function as it was written, and its line.

    What is written without parentheses keeps no place of its own, and is looked for.
    """
    start, end = node.meta.get("start"), node.meta.get("end")
    if start is not None and end is not None:
        return f"{sql[start : end + 1]}()", int(node.meta["line"])
    names = tuple(_function_names(node))
    written, line = _first(sql, names)
    return written or f"{names[0] if names else node.sql('duckdb')}()", line


def _first(sql: str, words: Sequence[str]) -> tuple[str, int]:
    """Returns the first of these words that stands in `sql` outside of quotes, and its line."""
    import sqlglot
    from sqlglot import TokenType

    for token in sqlglot.tokenize(sql, read="duckdb"):
        is_quoted = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
        if not is_quoted and token.text.lower() in words:
            return token.text, token.line
    return "", 1


def _function_names(node: Any) -> Iterator[str]:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        yield str(node.this).lower()
    elif isinstance(node, exp.Func):
        yield from (name.lower() for name in node.sql_names())


def _arguments(node: exp.Func) -> list[Any]:
    return node.expressions or [value for value in node.args.values() if value]


_MENDS = {
    "sql-reads-file": ("tables by name", "Ingest the file, then name its table."),
    "sql-reads-clock": (
        "times that are in the data, so that the same rows come again",
        "Use a column, or the end of the slice.",
    ),
    "sql-random": (
        "rows that follow from the inputs alone",
        "Order or filter by a column, or give the sample a seed: REPEATABLE (7).",
    ),
    "sql-reads-session": ("values that are in the data", "Write the value itself."),
    "bad-sql": ("columns by name", "Name the columns."),
}


def _outside(path: str, line: int, what: str, kind: str, expected: str = "") -> InvalidError:
    wanted, mend = _MENDS[kind]
    return InvalidError(
        f"{path}:{line}: the SQL uses {what}: expected {expected or wanted}. {mend}",
        kind=kind,
        path=path,
        line=line,
    )


def _unknown(
    path: str, line: int, what: str, name: str, known: Sequence[str], kind: str
) -> InvalidError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
    listed = ", ".join(sorted(known)[:20]) or "none yet"
    return InvalidError(
        f'{path}:{line}: {what.lower()} "{name}" does not exist: expected one of {listed}. {mend}',
        kind=kind,
        path=path,
        line=line,
        name=name,
    )


def _unresolved(
    tree: exp.Expr, path: str, schemas: Mapping[str, Sequence[str]], error: Exception
) -> InvalidError:
    from sqlglot import exp

    text = str(error)
    named = re.search(r"(?:Column '|Unknown column: )\"?(\w+)", text)
    if named is None or "mbiguous" in text:
        return _bad_sql(path, error)
    name = named[1].lower()
    known = sorted({column for columns in schemas.values() for column in columns})
    place = next((one for one in tree.find_all(exp.Column) if one.name.lower() == name), tree)
    if name in {column.lower() for column in known}:
        return InvalidError(
            f'{path}:{_line(place)}: column "{name}" could come from several tables, or from one '
            "that is not in reach: expected one source. Write its table before it.",
            kind="bad-sql",
            path=path,
            line=_line(place),
        )
    return _unknown(path, _line(place), "Column", name, known, "no-such-column")


def _bad_sql(path: str, error: Exception) -> InvalidError:
    text = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[0]
    place = re.search(r"[Ll]ine:? (\d+)", text)
    line = int(place[1]) if place else 1
    said = re.sub(r"\.? ?Line:? \d+, Col:? ?\d+\.?", "", text).rstrip(". ")
    return InvalidError(
        f"{path}:{line}: the SQL cannot be read: {said}. Expected a select in DuckDB's "
        "dialect. Correct it.",
        kind="bad-sql",
        path=path,
        line=line,
    )


def _line(node: exp.Expr) -> int:
    from sqlglot import exp

    for one in (node, *node.find_all(exp.Identifier, exp.Literal)):
        line = one.meta.get("line")
        if line:
            return int(line)
    return 1


def _kept(file: Path, columns_of: SchemaOf) -> Lineage | None:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        found = Lineage(
            tuple(body["tables"]),
            {name: tuple(inputs) for name, inputs in body["columns"].items()},
            tuple(body["reads"]),
            dict(body["copies"]),
            tuple(Rows(frozenset(one["always"]), frozenset(one["maybe"])) for one in body["rows"]),
        )
        return found if body["schemas"] == _schemas(found.tables, columns_of) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it was never kept, or not whole: look again


def _schemas(tables: Sequence[str], columns_of: SchemaOf) -> str:
    return digest_of("instep.columns.v1", {name: list(columns_of(name) or ()) for name in tables})
