"""What a table promises, as records: columns with their terms, a key, and terms of a whole batch.

A row term is broken by single rows, which go to quarantine; a batch term is broken by the batch,
which is held. Numbers are kept as decimal text, since contracts are compared and displayed, and
are cast to the column's type where they are checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import cached_property

from instep.canonical import Json
from instep.engines.schema import Column, Schema
from instep.tables.partition import Order, Part


class MergePolicy(StrEnum):
    """How an arrival enters its table."""

    APPEND = "append"
    KEYED = "keyed"
    REPLACE = "replace"
    DERIVED = "derived"


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range; `value` is text that casts to the column's type."""

    value: str
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class ColumnTerm:
    """One column and what each of its values promises.

    `type` is an Iceberg type, or "struct" or "list" with `children`, which promise only to be
    there and not to be null.
    """

    name: str
    type: str
    required: bool = False
    minimum: Bound | None = None
    maximum: Bound | None = None
    shortest: int | None = None
    longest: int | None = None
    pattern: str | None = None
    values: tuple[str, ...] = ()
    unit: str = ""
    description: str = ""
    children: tuple[ColumnTerm, ...] = ()

    def as_column(self) -> Column:
        """Returns the column of a table that this is, without ids."""
        children = tuple(child.as_column() for child in self.children)
        return Column(0, self.name, self.type, self.required, self.description, children)

    @property
    def sql_type(self) -> str:
        """The DuckDB type that holds the column's values."""
        return self.as_column().sql_type

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "type": self.as_column().full_type,
            "terms": list(self.sentences()),
            "unit": self.unit,
            "description": self.description,
        }

    def sentences(self) -> Iterator[str]:
        """Yields each promise of the column in words."""
        if self.required:
            yield "is not null"
        if self.minimum:
            yield f"is {'above' if self.minimum.exclusive else 'at least'} {self.minimum.value}"
        if self.maximum:
            yield f"is {'below' if self.maximum.exclusive else 'at most'} {self.maximum.value}"
        if self.shortest is not None:
            yield f"has at least {self.shortest} characters"
        if self.longest is not None:
            yield f"has at most {self.longest} characters"
        if self.pattern is not None:
            yield f"matches {self.pattern}"
        if self.values:
            yield f"is one of {', '.join(self.values)}"


class Metric(StrEnum):
    """What a batch term counts."""

    ROWS = "rowCount"
    NULLS = "nullValues"
    INVALID = "invalidValues"
    DUPLICATES = "duplicateValues"


class Operator(StrEnum):
    """How a count is compared; between is closed at both ends."""

    EQUAL = "mustBe"
    NOT_EQUAL = "mustNotBe"
    ABOVE = "mustBeGreaterThan"
    AT_LEAST = "mustBeGreaterOrEqualTo"
    BELOW = "mustBeLessThan"
    AT_MOST = "mustBeLessOrEqualTo"
    BETWEEN = "mustBeBetween"
    NOT_BETWEEN = "mustNotBeBetween"


_WORDS = {
    Operator.EQUAL: "{0}",
    Operator.NOT_EQUAL: "not {0}",
    Operator.ABOVE: "above {0}",
    Operator.AT_LEAST: "at least {0}",
    Operator.BELOW: "below {0}",
    Operator.AT_MOST: "at most {0}",
    Operator.BETWEEN: "between {0} and {1}",
    Operator.NOT_BETWEEN: "not between {0} and {1}",
}


@dataclass(frozen=True, slots=True)
class BatchTerm:
    """A promise of a whole batch: a count, or a share in percent, compared with operands."""

    metric: Metric
    columns: tuple[str, ...]
    operator: Operator
    operands: tuple[Decimal, ...]
    percent: bool = False
    pattern: str | None = None
    values: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        unit = " percent" if self.percent else ""
        expected = _WORDS[self.operator].format(*(f"{operand:f}" for operand in self.operands))
        of = f" of {', '.join(self.columns)}" if self.columns else ""
        return f"{self.metric.value}{of} is {expected}{unit}"

    def holds(self, count: int, rows: int) -> bool:
        """Tells whether the term holds for `count` cases among `rows` rows; exact."""
        figure = Decimal(count)
        if self.percent:
            figure = figure * 100 / rows if rows else Decimal(0)
        first, last = self.operands[0], self.operands[-1]
        match self.operator:
            case Operator.EQUAL:
                return figure == first
            case Operator.NOT_EQUAL:
                return figure != first
            case Operator.ABOVE:
                return figure > first
            case Operator.AT_LEAST:
                return figure >= first
            case Operator.BELOW:
                return figure < first
            case Operator.AT_MOST:
                return figure <= first
            case Operator.BETWEEN:
                return first <= figure <= last
            case Operator.NOT_BETWEEN:
                return not first <= figure <= last

    def to_json(self) -> dict[str, Json]:
        return {"metric": self.metric.value, "columns": list(self.columns), "term": self.sentence}


@dataclass(frozen=True, slots=True)
class Source:
    """Which files feed the table, and how they are read; `pattern` is matched to file names."""

    pattern: str
    format: Format
    delimiter: str = ","
    null_markers: tuple[str, ...] = ("",)
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Contract:
    """All that one table promises."""

    table: str
    version: str
    columns: tuple[ColumnTerm, ...]
    purpose: str = ""
    key: tuple[str, ...] = ()
    event_time: str | None = None
    merge_policy: MergePolicy = MergePolicy.APPEND
    max_quarantined: Decimal = Decimal("0.01")
    sources: tuple[Source, ...] = ()
    batch: tuple[BatchTerm, ...] = ()
    partition: tuple[Part, ...] = ()
    sort: tuple[Order, ...] = ()

    @property
    def schema(self) -> Schema:
        """The columns of its table, without ids."""
        return Schema(tuple(column.as_column() for column in self.columns))

    @property
    def has_layout(self) -> bool:
        """Tells whether it says how files are laid out; if not, the table's own layout stays."""
        return bool(self.partition or self.sort)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> ColumnTerm | None:
        """Returns the column named `name`, ignoring case, or None."""
        return self._by_name.get(name.lower())

    @cached_property
    def _by_name(self) -> dict[str, ColumnTerm]:
        return {column.name.lower(): column for column in reversed(self.columns)}

    def to_json(self) -> dict[str, Json]:
        return {
            "table": self.table,
            "version": self.version,
            "purpose": self.purpose,
            "key": list(self.key),
            "event_time": self.event_time,
            "merge_policy": self.merge_policy.value,
            "max_quarantined": f"{self.max_quarantined:f}",
            "columns": [column.to_json() for column in self.columns],
            "batch": [term.to_json() for term in self.batch],
            "partition": [f"{part.transform}({part.column})" for part in self.partition],
            "sort": [str(order) for order in self.sort],
        }
