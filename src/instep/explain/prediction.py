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
from instep.changes.records import Approval, Change, State
from instep.clock import format_instant
from instep.history import tree
from instep.history.commits import Commit, load_commit
from instep.history.operations import Operation, operations
from instep.history.repository import Repository
from instep.history.store import Transaction
from instep.models.card import Card, card_of
from instep.pipelines.records import Run, load_run
from instep.serving.prediction_log import find_receipt
from instep.serving.records import PredictionRecord


@dataclass(frozen=True, slots=True)
class Explanation:
    """The chain behind one prediction, from the answer back to the decisions.

    `trained_at` is the commit that the run read, and `contracts` are those in force there.
    `change` brought this model to main, `released` made it live where it answered; None where no
    record of it exists.
    """

    prediction: PredictionRecord
    card: Card
    run: Run
    trained_at: Commit
    contracts: Mapping[str, JsonObject]
    change: Change | None
    approvals: tuple[Approval, ...]
    released: Operation | None

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
            "contracts": dict(self.contracts),
            "change": _change_json(self.change),
            "approvals": [approval.to_json() for approval in self.approvals],
            "released": self.released.to_json() if self.released else None,
        }


def explain_receipt(repo: Repository, receipt: str) -> Explanation:
    """Returns everything that led to the prediction with this receipt.

    Raises:
        NotFoundError (kinds "no-such-receipt", "no-such-key", "no-such-run").
    """
    found = find_receipt(repo.root / "predictions", receipt)
    source = found.source
    key = f"model/{source.model}"
    content = repo.content(source.commit, key)
    with repo.store.reading() as tx:
        run = load_run(tx, str(content["run"]))
        change = _change_that_brought(tx, repo, key, content)
        approvals = tuple(records.approvals_of(tx, change.number)) if change else ()
        released = _release_of(tx, repo, source.environment, key, content, found.at)
    return Explanation(
        prediction=found,
        card=card_of(repo.objects, content),
        run=run,
        trained_at=repo.commit(run.input_commit),
        contracts=repo.entries(run.input_commit, "contract"),
        change=change,
        approvals=approvals,
        released=released,
    )


def _change_that_brought(
    tx: Transaction, repo: Repository, key: str, content: JsonObject
) -> Change | None:
    """Returns the first merged change that set `key` to `content`."""
    for change in records.list_changes(tx, State.MERGED):
        base, head = load_commit(tx, change.base), load_commit(tx, change.head)
        if (
            tree.find(repo.nodes, head.tree, key) == content
            and tree.find(repo.nodes, base.tree, key) != content
        ):
            return records.load_change(tx, change.number)
    return None


def _release_of(
    tx: Transaction,
    repo: Repository,
    environment: str,
    key: str,
    content: JsonObject,
    at: datetime,
) -> Operation | None:
    """Returns the operation that made `content` live, as it was at instant `at`."""
    found = None
    for entry in operations(tx, environment):
        if entry.at > at or entry.after is None:
            break
        is_live = tree.find(repo.nodes, load_commit(tx, entry.after).tree, key) == content
        found = (found or entry) if is_live else None
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
