"""Which contract terms hold for a model's features, by following each back to where it came from.

A feature is a column of the table that the model was trained on; a SQL step may have carried it
there from another table. As long as it keeps its name and has one origin, the contracts of both
tables speak of it. A column that was computed or renamed on the way is another one: no contract of
its inputs is applied to it.

Pure, given the documents of one commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from instep.contracts.terms import Contract
from instep.pipelines.config import PipelineConfig, SqlStep, TrainStep
from instep.pipelines.lineage import analyse, parse_select
from instep.serving.guard import Term


@dataclass(frozen=True, slots=True)
class Documents:
    """What one commit says: contracts by table, columns by table, pipelines with their SQL files.

    `columns` has the tables that exist; a table that only a contract names has the contract's.
    """

    contracts: Mapping[str, Contract]
    columns: Mapping[str, Sequence[str]]
    pipelines: Sequence[tuple[PipelineConfig, Mapping[str, str]]]


def terms_of(documents: Documents, model: str, feature: str) -> tuple[Term, ...]:
    """Returns the terms that hold for a feature of `model`, the nearest table first."""
    found = []
    for table in _tables_of(documents, model, feature):
        contract = documents.contracts.get(table)
        column = contract.column(feature) if contract else None
        if column is not None:
            found.append(Term(table, column))
    return tuple(found)


def trained_on(documents: Documents, model: str) -> str | None:
    """Returns the table that a step trains `model` on, or None where no pipeline does."""
    for pipeline, _ in documents.pipelines:
        for step in pipeline.steps:
            if isinstance(step, TrainStep) and step.model == model:
                return step.reads
    return None


def _tables_of(documents: Documents, model: str, feature: str) -> Iterator[str]:
    """Yields the tables that hold the feature under its name, from the training table back."""
    table = trained_on(documents, model)
    if table is not None:
        yield from _back(documents, table, feature, seen=())


def _back(documents: Documents, table: str, feature: str, seen: tuple[str, ...]) -> Iterator[str]:
    yield table
    origin = _carried_from(documents, table, feature.lower())
    if origin is not None and origin != table and origin not in seen:
        yield from _back(documents, origin, feature, (*seen, table))


def _carried_from(documents: Documents, table: str, feature: str) -> str | None:
    """Returns the table whose column of the same name a step put into `table` as it is."""
    for pipeline, files in documents.pipelines:
        for step in pipeline.steps:
            if isinstance(step, SqlStep) and step.writes == table:
                sql = files[step.sql]
                lineage = analyse(sql, step.sql, documents.columns.get)
                origins = lineage.columns.get(feature, ())
                if len(origins) != 1 or _is_computed(sql, step.sql, feature):
                    return None
                origin, _, column = origins[0].rpartition(".")
                return origin if column == feature else None
    return None


def _is_computed(sql: str, path: str, feature: str) -> bool:
    """Says whether anything but a bare column gets the name of the feature, anywhere in the SQL."""
    from sqlglot import exp

    return any(
        alias.alias.lower() == feature and not isinstance(alias.this, exp.Column)
        for alias in parse_select(sql, path).find_all(exp.Alias)
    )
