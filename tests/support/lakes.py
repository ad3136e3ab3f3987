"""A small lake with something of every kind: tables, blobs, branches, records, predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from instep.canonical import JsonObject, digest_of, to_microseconds
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.history.edits import Edit, publish
from instep.history.objects import write_durably
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository
from instep.history.store import Value
from instep.serving.segments import MAGIC, Ending, framed
from instep.tables.content import TableContent
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, schema_of
from instep.tables.write import append, create_table, data_folder, replace, set_columns

COLUMNS = (Column(0, "n", "long"), Column(0, "t", "string"))


@dataclass(frozen=True, slots=True)
class Filled:
    """What was put in: the commit on main after each step, oldest first."""

    commits: tuple[str, ...]
    table: TableContent


def fill_lake(repo: Repository) -> Filled:
    """Commits a table that is appended to, widened and rewritten, a contract and a model."""
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    commits = []
    for first in (1, 4, 7):
        table = appended(repo, table, range(first, first + 3))
        commits.append(commit(repo, {"table/sales": table.to_content()}))
    wide = (*COLUMNS, Column(0, "u", "double"))
    table = set_columns(repo.root, table, wide, at=repo.clock())
    oldest = data_files(repo.root, table)[0]
    table = replace(repo.root, table, (), [oldest.path], at=repo.clock())
    profile_table(repo.root, table)
    contract = repo.objects.put(b"apiVersion: v3.1.0\nkind: DataContract\n")
    model = {name: repo.objects.put(name.encode()) for name in ("MLmodel", "params.json")}
    changes: dict[str, JsonObject] = {
        "table/sales": table.to_content(),
        "contract/sales": {"type": "instep.contract.v1", "blob": contract},
        "model/delay": {"type": "instep.model.v1", "files": model, "version": "1"},
    }
    commits.append(commit(repo, changes))
    with repo.store.transaction() as tx:
        create_ref(tx, "ideas", RefKind.BRANCH, commits[1], owner="ben", at=repo.clock())
        create_ref(tx, "v1", RefKind.TAG, commits[0], owner="ana", at=repo.clock())
    commit(repo, {"contract/other": changes["contract/sales"]}, ref="ideas", token="once")
    _records(repo, commits, contract)
    _predictions(repo)
    return Filled(tuple(commits), table)


def appended(repo: Repository, table: TableContent, numbers: range) -> TableContent:
    listed = ", ".join(f"({n}, 'row {n}')" for n in numbers)
    schema = schema_of(repo.root, table)
    wide = ", n / 2 AS u" if "u" in schema.names else ""
    sql = f"SELECT n::BIGINT AS n, t{wide} FROM (VALUES {listed}) v(n, t)"
    with DuckDB(repo.root / "staging") as engine:
        files = engine.write(sql, schema, data_folder(repo.root, table))
    return append(repo.root, table, files, at=repo.clock())


def commit(
    repo: Repository,
    changes: Mapping[str, JsonObject | None],
    ref: str = "main",
    token: str | None = None,
) -> str:
    with repo.store.transaction(ref) as tx:
        edit = Edit(repo.resolve(ref), changes, "ana", "Something new", "run_0")
        return publish(tx, repo, ref, edit, token=token).id


def _records(repo: Repository, commits: list[str], blob: str) -> None:
    at = to_microseconds(repo.clock())
    with repo.store.transaction() as tx:
        _insert(
            tx.execute,
            "changes",
            number=1, kind="arrival", state="merged", title="Sales of May", author="ana",
            opened_at=at, branch=None, base_commit=commits[0], head_commit=commits[1],
            evidence="{}", evidence_digest=digest_of("x", {}), merged_commit=commits[1],
            ended_by="ana", ended_at=at, why="It fits.",
        )  # fmt: skip
        _insert(
            tx.execute,
            "approvals",
            change=1, actor="ben", at=at, binding="b", why="As agreed.",
        )  # fmt: skip
        _insert(
            tx.execute,
            "arrivals",
            id="arr_0", change=1, table_name="sales", source="till", file_name="may.csv",
            file_digest=repo.objects.put(b"n,t\n1,row 1\n"), file_size_bytes=12, contract=blob,
            rows=3, quarantined=0, profile=repo.objects.put(b"[]"), quarantine=None, held_for="",
        )  # fmt: skip
        _insert(
            tx.execute,
            "runs",
            id="run_0", pipeline="delay", branch="main", actor="ana", state="succeeded",
            started_at=at, ended_at=at, lease_until=at, input_commit=commits[0],
            output_commit=commits[2], slice_from=at, slice_to=at, configuration="[]",
            code=json.dumps({"steps/a.sql": repo.objects.put(b"select 1")}), code_digest="c",
            runtime_digest="r", runtime_blob=repo.objects.put(b"{}"), engine="duckdb", steps="[]",
            outputs="{}", metrics="{}", estimated="{}", actual="{}", error=None,
        )  # fmt: skip


def _insert(execute: Callable[[str, Sequence[Value]], int], table: str, **values: Value) -> None:
    marks = ", ".join("?" for _ in values)
    execute(f"insert into {table} ({', '.join(values)}) values ({marks})", tuple(values.values()))


def _predictions(repo: Repository) -> None:
    records = [json.dumps({"receipt": f"rcp_{n}"}, separators=(",", ":")) for n in range(5)]
    ending = Ending("stopped", len(records)).encode()
    frames = [framed(one) for one in (*(one.encode() for one in records), ending)]
    write_durably(
        repo.here / "predictions" / "1385856000000-0a1b2c3d.log", MAGIC + b"".join(frames)
    )
