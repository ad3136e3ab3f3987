"""Where rows of a table may be besides the table: what an erasure of rows names and leaves alone.

What was computed from them, what they came from, and what was told of them. None of it is searched:
it is named whole, so that a person can decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from instep.cli.output import counted
from instep.history.repository import Repository
from instep.history.store import Transaction

_NAMED = 5
"""How many of a kind are named; the others are counted."""


def remains_of(repo: Repository, table: str) -> tuple[str, ...]:
    """Returns in words where rows of a table may be that erasing them from it does not reach."""
    with repo.store.reading() as tx:
        found = [*_computed(tx, table), *_arrived(tx, table), *_told(tx, table)]
    segments = sorted(repo.here.glob("predictions/*.log"))
    if segments:
        found.append(
            f"the prediction log ({counted(len(segments), 'segment')}) and the table predictions "
            "on _instep hold the features of answered questions"
        )
    staged = [path for path in (repo.here / "staging").glob("*") if path.is_dir()]
    if staged:
        found.append(
            f"staging has {counted(len(staged), 'folder')} of work that failed or is under way; "
            "those that failed go by instep gc"
        )
    found.append("backups keep what they were made of: make a new one and remove the old ones")
    return tuple(found)


def _computed(tx: Transaction, table: str) -> Iterator[str]:
    """What runs made of the table, directly or by way of others."""
    made: dict[str, set[str]] = {}
    for output, inputs in tx.rows("select distinct output, inputs from run_pieces"):
        for one in json.loads(inputs)["inputs"]:
            made.setdefault(str(one["table"]), set()).add(str(output))
    reached, waiting = set[str](), [table]
    while waiting:
        for output in made.get(waiting.pop(), ()):
            if output not in reached:
                reached.add(output)
                waiting.append(output.partition("/")[2])
    tables = sorted(one for one in reached if one.startswith("table/"))
    models = sorted(reached - set(tables))
    if tables:
        yield (
            f"{_listed(tables)} were computed from it and are not erased by this: erase rows "
            "there too, or compute them anew"
        )
    if models:
        yield f"{_listed(models)} were trained on it: train them anew, and recall what is released"


def _arrived(tx: Transaction, table: str) -> Iterator[str]:
    rows = tx.rows(
        "select file_digest, quarantine, profile from arrivals where table_name = ? order by id",
        (table,),
    )
    kinds: Mapping[str, list[str]] = {
        "files that arrived for it": _once(row[0] for row in rows),
        "files of rows in quarantine": _once(row[1] for row in rows),
        "profiles of arrivals": _once(row[2] for row in rows),
    }
    for what, digests in kinds.items():
        if digests:
            yield (
                f"{len(digests):,} {what} are kept ({_listed([one[:12] for one in digests])}): "
                'look through them, and "instep erase DIGEST" those that hold the rows'
            )


def _told(tx: Transaction, table: str) -> Iterator[str]:
    numbers = [
        str(row[0])
        for row in tx.rows(
            "select number from changes where evidence like ? order by number",
            (f'%"table/{table}"%',),
        )
    ]
    if numbers:
        yield f"the evidence of changes {_listed(numbers)} may show rows of it as samples"


def _once(digests: Iterable[object]) -> list[str]:
    """Returns each digest there is once, in order: several arrivals may have one file."""
    return list(dict.fromkeys(str(one) for one in digests if one))


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
