"""What is new about a table: its columns, its rows, and whether the result keeps its contract."""

from __future__ import annotations

from collections.abc import Sequence

from instep.canonical import Json, JsonObject
from instep.changes.key_evidence import KeyEvidence, act_of
from instep.contracts.terms import Contract
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.history.tree import Difference
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.read import file_set, load_metadata, row_count, schema_of
from instep.tables.row_diff import RowDiff
from instep.tables.schema_diff import SchemaDiff, diff_schema


def describe_table(repo: Repository, after_commit: str, difference: Difference) -> KeyEvidence:
    """Returns the evidence of a table that was added, changed or removed.

    The contract is the one that commit `after_commit` holds for the table.
    """
    name = difference.key.partition("/")[2]
    before, after = _content(difference.before), _content(difference.after)
    contract = contract_at(repo, after_commit, name)
    key = contract.key if contract else ()
    rows = diff_rows(repo.root, before, after, key)
    schema = schema_difference(repo, before, after)
    sentences = [row_sentence(repo, before, after, rows)]
    sentences += schema.sentences() if before and after else []
    findings: list[Finding] = []
    if rows.repeated_keys:
        findings.append(_repeated_keys(difference.key, rows))
    anew = {old.name for old, _ in schema.made_anew}
    gone = [column.name for column in schema.removed if column.name not in anew]
    if gone and before and after:
        findings.append(_removed_columns(difference.key, gone))
    if after is not None and contract is not None:
        checked = check_result(repo, after, contract)
        findings += checked
        terms = sum(1 for column in contract.columns for _ in column.sentences())
        sentences.append(
            f"{len(checked)} of its contract's terms are broken"
            if checked
            else f"keeps all {terms + len(contract.batch)} terms of its contract"
        )
    elif after is not None:
        sentences.append("has no contract: nothing was checked")
    facts: dict[str, Json] = {"rows": rows.to_json(), "schema": schema.to_json()}
    return KeyEvidence(difference.key, act_of(difference), tuple(sentences), facts, tuple(findings))


def key_of(repo: Repository, commit: str, table: str) -> tuple[str, ...]:
    """Returns the key that the table's contract in a commit names; empty where none does."""
    contract = contract_at(repo, commit, table)
    return tuple(contract.key) if contract else ()


def check_against(repo: Repository, commit: str, table: str) -> tuple[Finding, ...]:
    """Returns what a table breaks of its contract, both as a commit holds them."""
    content, contract = repo.find(commit, f"table/{table}"), contract_at(repo, commit, table)
    if content is None or contract is None:
        return ()
    return check_result(repo, TableContent.from_content(content), contract)


def check_result(
    repo: Repository, content: TableContent, contract: Contract
) -> tuple[Finding, ...]:
    """Returns what a whole table, as it is, breaks of its contract; reads the table once."""
    from instep.contracts.checks import (
        Batch,
        batch_counts,
        batch_findings,
        broken_counts,
        duplicate_keys,
        term_names,
    )
    from instep.engines.duckdb import DuckDB

    schema = schema_of(repo.root, content)
    missing = [column.name for column in contract.columns if column.name not in schema.names]
    if missing:
        return (
            Finding(
                "missing-column",
                f"table/{contract.table}",
                Severity.WARNING,
                f"table/{contract.table} lacks {', '.join(missing)}, which its contract promises.",
            ),
        )
    batch = Batch(contract.table, {column.name: column.sql_type for column in schema.columns})
    found: list[Finding] = []
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, content, contract.table))
        counted = engine.rows(broken_counts(contract, batch))[0]
        for name, count in zip(term_names(contract, batch), counted[2:], strict=True):
            if count:
                found.append(_broken(contract, f"{name} in {count:,} of {counted[0]:,} rows"))
        if contract.key:
            duplicates = len(engine.rows(duplicate_keys(contract, batch)))
            if duplicates:
                found.append(_broken(contract, f"{duplicates:,} keys occur more than once"))
        query = batch_counts(contract, batch)
        if query is not None:
            counts = engine.rows(query)[0]
            found += batch_findings(contract, counts[0], counts[1:])
    return tuple(found)


def _broken(contract: Contract, what: str) -> Finding:
    return Finding(
        "broken-term",
        f"table/{contract.table}",
        Severity.WARNING,
        f"table/{contract.table} breaks its contract: {what}.",
    )


def _repeated_keys(key: str, rows: RowDiff) -> Finding:
    first = rows.repeated[0]
    named = ", ".join(f"{name} {value}" for name, value in zip(rows.key, first.key, strict=True))
    return Finding(
        "repeated-key",
        key,
        Severity.WARNING,
        f"{key} has {rows.repeated_keys:,} keys that stand more than once among the rows compared, "
        f"such as {named}: {first.before:,} times before, {first.after:,} times after.",
    )


def _removed_columns(key: str, names: Sequence[str]) -> Finding:
    return Finding(
        "removed-column",
        key,
        Severity.WARNING,
        f"{key} loses {', '.join(names)}: whatever reads it will fail.",
    )


def row_sentence(
    repo: Repository,
    before: TableContent | None,
    after: TableContent | None,
    rows: RowDiff,
    *,
    is_exact: bool = True,
) -> str:
    """Returns how many rows there were and are, and how many differ, by which key."""
    had = row_count(repo.root, before) if before else 0
    has = row_count(repo.root, after) if after else 0
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (rows.added, "added"),
            (rows.removed, "removed"),
            (rows.changed, "changed"),
        )
        if count
    ]
    by = f"by {', '.join(rows.key)}" if rows.key else "as a multiset, without a key"
    how = "exact" if is_exact else "floats within the tolerance"
    return f"rows {had:,} -> {has:,}: {', '.join(parts) or 'the same rows'} ({how}, {by})"


def schema_difference(
    repo: Repository, before: TableContent | None, after: TableContent | None
) -> SchemaDiff:
    """Returns how the columns and the rest of the definition differ."""
    states = (load_metadata(repo.root, one) if one else None for one in (before, after))
    return diff_schema(*states)


def _content(content: JsonObject | None) -> TableContent | None:
    return TableContent.from_content(content) if content else None


def contract_at(repo: Repository, commit: str, table: str) -> Contract | None:
    """Returns the contract of a table at a commit, or None."""
    from instep.contracts.document import parse

    content = repo.find(commit, f"contract/{table}")
    if content is None:
        return None
    return parse(repo.objects.get(str(content["blob"])).decode(), f"contracts/{table}.yaml")
