"""May the columns of a table that is there get the types that a contract says?

Iceberg reads old files by some wider types. Where it cannot, rows are written anew if that loses
nothing, and what cannot be either is refused: when the contract is proposed, and again when a file
arrives by it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instep.contracts.terms import Contract, MergePolicy
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.tables.content import TableContent
from instep.tables.read import layout_of, row_count, schema_of
from instep.tables.retype import Retyped, lost_values, retyped_columns

_IN_LAYOUT = (
    "files are partitioned or sorted by it, which must be by others first, or by a new column"
)

_HAD_ZEROS = "files had zeros before its numbers, which the table does not have any more"

UNFIT = "type-change"
"""The kind of the error that a column cannot get its contract's type."""


def changed_types(
    root: Path,
    table: TableContent,
    contract: Contract,
    had_zeros: Callable[[str], bool] = lambda name: False,
) -> tuple[Retyped, ...]:
    """Returns the columns whose rows have to be written anew; under `replace` none stays.

    Reads those columns of the table. `had_zeros` says of a column of numbers whether it is known
    that files had zeros before them, as codes have.

    Raises:
        InvalidError (kind "type-change"): a column cannot get its contract's type.
    """
    retyped = retyped_columns(schema_of(root, table), contract.schema.columns)
    if not retyped:
        return ()
    used = _laid_out_by(root, table)
    stays = contract.merge_policy is not MergePolicy.REPLACE and row_count(root, table) > 0
    for column in retyped:
        if used & {field.id for field in column.before.fields()}:
            raise _unfit(contract, column, _IN_LAYOUT)
        if stays and not column.has_certain_values:
            raise _unfit(contract, column, "it is not certain what each value would become")
        if stays and column.after.type == "string" and had_zeros(column.before.name):
            raise _unfit(contract, column, _HAD_ZEROS)
        if stays:
            count, first = lost_values(root, table, column)
            if count:
                raise _unfit(
                    contract, column, f"{count:,} of its values, such as {first}, would be lost"
                )
    return retyped


def may_change_type(root: Path, table: TableContent, contract: Contract, name: str) -> bool:
    """Says whether a column may get another type at all by a corrected contract."""
    column = next((one for one in schema_of(root, table).columns if one.name == name), None)
    if column is None or contract.merge_policy is MergePolicy.REPLACE:
        return True
    if column.id in _laid_out_by(root, table):
        return False
    is_widened = column.type == "float" or column.type.startswith("decimal")
    is_certain = Retyped(column, Column(0, name, "string")).has_certain_values
    return is_widened or is_certain or not row_count(root, table)


def _laid_out_by(root: Path, table: TableContent) -> set[int]:
    """The field ids of the columns by which new files are partitioned or sorted."""
    layout = layout_of(root, table)
    partition = {field.source_id for field in layout.partition}
    return partition | {field.source_id for field in layout.sort}


def sentence_of(column: Retyped) -> str:
    """Returns in a contract's words what type a column had and has from now on."""
    return f"{column.after.name} was {_named(column.before)} and is {_named(column.after)}"


def way_out(table: str, column: str, change: str = "CHANGE") -> str:
    """Returns what to do where a column of a table cannot get the type that it ought to have."""
    return (
        f"Give the new column another name in contracts/{table}.yaml, and let a file that says "
        f'"{column}" in by "instep accept {change} --rename {column}=NEW"; or, where the table is '
        'young, undo the changes that brought its rows ("instep undo change N"), merge the '
        "contract then and ingest the files again."
    )


def _unfit(contract: Contract, column: Retyped, why: str) -> InvalidError:
    name = column.before.name
    return InvalidError(
        f'Column "{name}" is {_named(column.before)} in table {contract.table} and cannot become '
        f"{_named(column.after)}: {why}. {way_out(contract.table, name)}",
        kind=UNFIT,
        table=contract.table,
        column=name,
        before=column.before.full_type,
        after=column.after.full_type,
    )


def _named(column: Column) -> str:
    """The type in a contract's words, with Iceberg's where these are the same for several."""
    from instep.contracts.infer import logical_type

    logical = logical_type(column)
    is_usual = column.type in _USUAL
    return logical if is_usual else f"{logical} ({column.full_type})"


_USUAL = ("string", "date", "timestamptz", "time", "double", "long", "boolean")
"""The Iceberg types that a contract's words mean by themselves."""
