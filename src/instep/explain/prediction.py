"""Why a served prediction is what it is: everything from the request back to who agreed.

No model is run and nothing is recomputed: each fact is read from the record that was made when it
happened. A fact that is not recorded is said to be so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from instep.canonical import Json, JsonObject
from instep.changes import records
from instep.changes.records import Approval, Change
from instep.clock import format_instant
from instep.contracts.document import parse
from instep.history import tree
from instep.history.commits import Commit, first_parents, load_commit
from instep.history.operations import Operation, operations
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.models.card import Card, card_of
from instep.pipelines.erased import erased_since
from instep.pipelines.records import Run, load_run
from instep.serving.log_files import find_receipt
from instep.serving.records import PredictionRecord, Source

_COMMITS = 100_000
"""Commits looked back through for the one that brought a model: decades of daily arrivals."""


@dataclass(frozen=True, slots=True)
class ContractInForce:
    """A contract as one commit holds it; `version` is what it says of itself."""

    table: str
    version: str
    content: JsonObject

    def to_json(self) -> dict[str, Json]:
        return {"version": self.version, **self.content}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The chain behind one prediction, from the answer back to the decisions.

    `contracts` are those of the commit that was served, to which the question was held;
    `trained_at` is the commit that the run read, and `trained_under` the contracts of the run.
    `change` brought this model to main, `released` made it live where it answered; None where no
    record of it exists. `erased` says of which tables behind the model rows were erased since.
    """

    prediction: PredictionRecord
    card: Card
    run: Run
    trained_at: Commit
    contracts: tuple[ContractInForce, ...]
    trained_under: tuple[ContractInForce, ...]
    change: Change | None
    approvals: tuple[Approval, ...]
    released: Operation | None
    erased: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        source = self.prediction.source
        return {
            "receipt": self.prediction.receipt,
            "prediction": self.prediction.to_json(),
            "answered_at": format_instant(self.prediction.at),
            "event_time": format_instant(self.prediction.question.event_at),
            "model": {
                "name": source.model,
                "version": source.version,
                "digest": source.digest,
                "card": self.card.to_json(),
            },
            "is_within_intended_period": self.prediction.question.event_at in self.card.intended,
            "data_commit": source.commit,
            "environment": source.environment,
            "run": self.run.to_json(),
            "trained_at": self.trained_at.to_json(),
            "contracts": {one.table: one.to_json() for one in self.contracts},
            "trained_under": {one.table: one.to_json() for one in self.trained_under},
            "change": _change_json(self.change),
            "approvals": [approval.to_json() for approval in self.approvals],
            "released": self.released.to_json() if self.released else None,
            "erased": list(self.erased),
        }


def explain_receipt(repo: Repository, receipt: str) -> Explanation:
    """Returns everything that led to the prediction with this receipt.

    Raises:
        NotFoundError (kinds "no-such-receipt", "no-such-key", "no-such-run").
    """
    found = find_receipt(repo.here / "predictions", receipt)
    source = found.source
    key = f"model/{source.model}"
    content = repo.content(source.commit, key)
    with repo.store.reading() as tx:
        run = load_run(tx, str(content["run"]))
        change = _change_that_brought(tx, repo, source.commit, key, content)
        approvals = tuple(records.approvals_of(tx, change.number)) if change else ()
        released = _release_of(tx, repo, source, content, found.at)
    return Explanation(
        prediction=found,
        card=card_of(repo.objects, content),
        run=run,
        trained_at=repo.commit(run.input_commit),
        contracts=_in_force(repo, repo.entries(source.commit, "contract")),
        trained_under=_in_force(repo, _contracts_of(repo, run)),
        change=change,
        approvals=approvals,
        released=released,
        erased=erased_since(repo, run),
    )


def _contracts_of(repo: Repository, run: Run) -> dict[str, JsonObject]:
    """Returns the contracts of what a run read, and those it took along for what it wrote."""
    found = repo.entries(run.input_commit, "contract")
    if run.output_commit is not None:
        written = {f"contract/{key.partition('/')[2]}" for key in run.outputs}
        after = repo.entries(run.output_commit, "contract")
        found.update({key: content for key, content in after.items() if key in written})
    return found


def _in_force(repo: Repository, contents: Mapping[str, JsonObject]) -> tuple[ContractInForce, ...]:
    found = []
    for key, content in sorted(contents.items()):
        table = key.partition("/")[2]
        contract = parse(repo.objects.text(str(content["blob"])), f"contracts/{table}.yaml")
        found.append(ContractInForce(table, contract.version, content))
    return tuple(found)


def _change_that_brought(
    tx: Transaction, repo: Repository, served: str, key: str, content: JsonObject
) -> Change | None:
    """Returns the last change before `served` that set `key` to `content`.

    A commit that is no change, such as a rollback of one key in an environment, is passed over:
    what it put back was brought by a change before it.
    """
    later = None
    for commit in first_parents(tx, served, _COMMITS):
        is_there = tree.find(repo.nodes, commit.tree, key) == content
        if later is not None and not is_there:
            change = records.change_of_commit(tx, later)
            if change is not None:
                return change
        later = commit.id if is_there else None
    return None


def _release_of(
    tx: Transaction, repo: Repository, source: Source, content: JsonObject, at: datetime
) -> Operation | None:
    """Returns the operation that made `content` live, as it was when `at` an answer was given.

    A server follows a release a moment later, so the last operation then may be one that it had not
    seen yet: what counts is the last that brought the commit which answered.
    """
    chain = operations(tx, source.environment)
    brought = [entry for entry in chain if entry.after == source.commit]
    last = next((entry for entry in reversed(brought) if entry.at <= at), None)
    if last is None:
        return None
    key, found = f"model/{source.model}", last
    for entry in reversed(chain[: chain.index(last)]):
        if entry.after is None:
            break
        if tree.find(repo.nodes, load_commit(tx, entry.after).tree, key) != content:
            break
        found = entry
    return found


def _change_json(change: Change | None) -> Json:
    if change is None:
        return None
    return {
        "change": change.number,
        "title": change.title,
        "proposed_by": change.author,
        "proposed_at": format_instant(change.opened_at),
        "merged_by": change.ended_by,
        "merged_at": format_instant(change.ended_at) if change.ended_at else None,
        "merged_commit": change.merged_commit,
        "evidence_digest": change.evidence_digest,
    }
