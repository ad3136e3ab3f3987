"""An explanation names what was in force when the answer was given, not what is now or was once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pipeline_builders import Bakery, make_bakery

from instep.canonical import JsonObject
from instep.changes import gate
from instep.changes.records import Kind
from instep.cli.erase_rows import erased_rows
from instep.cli.explain import Explained
from instep.explain.prediction import Explanation, explain_receipt
from instep.history.edits import Edit
from instep.history.repository import MAIN, Repository, create_repository
from instep.releases import environments
from instep.serving.prediction_log import LogMode, PredictionLog
from instep.serving.records import Draft, Predicted, Question, Source

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: sales
version: {version}
status: active
schema:
  - name: sales
    properties:
      - {{name: id, logicalType: integer}}
"""

MODEL = "model/late"


@dataclass(frozen=True, slots=True)
class Shop:
    """A lake where changes are merged and released, and answers are given."""

    bakery: Bakery

    @property
    def repo(self) -> Repository:
        return self.bakery.repo

    def merged(self, changes: Mapping[str, JsonObject]) -> int:
        """Merges a change of ana's that ben agrees to, and returns its number."""
        repo = self.repo
        edit = Edit(repo.resolve(MAIN), dict(changes), "ana", "a change", "proposal")
        with repo.store.transaction() as tx:
            opened = gate.open_change(
                tx, repo, kind=Kind.MODEL, title="a change", edit=edit, evidence={}
            )
            gate.approve(tx, repo, opened.number, "ben")
            return gate.merge(tx, repo, opened.number, "ana").change.number

    def ran(self, branch: str) -> tuple[JsonObject, int]:
        """Runs, merges what the run made, and returns the model with the number of the change."""
        result = self.bakery.run(branch)
        contents = {
            key: self.repo.content(self.repo.resolve(branch), key) for key in result.changed
        }
        return contents[MODEL], self.merged(contents)

    def released(self) -> datetime:
        with self.repo.store.transaction() as tx:
            return environments.release(
                tx,
                self.repo,
                "prod",
                self.repo.resolve(MAIN),
                actor="ben",
                why="released",
                judge=lambda commit: (),
            ).at

    def rolled_back(self) -> None:
        with self.repo.store.transaction() as tx:
            environments.rollback(
                tx, self.repo, "prod", only=MODEL, actor="ben", why="back", judge=lambda commit: ()
            )

    def asked(self, commit: str | None = None) -> Explanation:
        """Answers from `commit`, or from what is live, and explains the answer."""
        repo = self.repo
        served = commit or repo.resolve("prod")
        content = repo.content(served, MODEL)
        source = Source("prod", served, "late", str(content["version"]), str(content["digest"]))
        question = Question({"id": 1}, repo.clock(), {})
        log = PredictionLog(repo.root / "predictions", LogMode.DURABLE, repo.clock)
        (record,) = log.append([Draft(source, question, Predicted(0.5), ())])
        log.close()
        assert record is not None
        return explain_receipt(repo, record.receipt)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("project")
    seconds = itertools.count()

    def clock() -> datetime:
        return datetime(2013, 12, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))

    bakery = make_bakery(folder, create_repository(folder / "lake", clock, "ana"), trains=True)
    bakery.write("instep.yaml", "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n")
    bakery.write("contracts/sales.yaml", CONTRACT.format(version="1.0.0"))
    bakery.adopt()
    return Shop(bakery)


def test_an_answer_leads_to_its_own_contracts_release_and_change(shop: Shop) -> None:
    bakery, repo = shop.bakery, shop.repo
    first, brought_first = shop.ran("one")
    released = shop.released()
    first_live = repo.resolve("prod")

    found = shop.asked()
    assert found.change is not None and found.change.number == brought_first
    assert [approval.actor for approval in found.approvals] == ["ben"]
    assert found.released is not None and found.released.at == released
    assert [one.version for one in found.contracts] == ["1.0.0"]
    assert found.trained_under == found.contracts

    # Another contract goes live with the same model: it is live since before, under new terms.
    bakery.write("contracts/sales.yaml", CONTRACT.format(version="1.1.0"))
    bakery.adopt()
    shop.released()
    found = shop.asked()
    assert [one.version for one in found.contracts] == ["1.1.0"]
    assert [one.version for one in found.trained_under] == ["1.0.0"]
    assert found.to_json()["contracts"] != found.to_json()["trained_under"]
    assert found.released is not None and found.released.at == released
    assert found.change is not None and found.change.number == brought_first
    shown = Explained(found).to_text()
    assert "in force       sales 1.1.0 (" in shown
    assert "trained under  sales 1.0.0 (" in shown

    # A server that has not followed a release yet answers from the commit before it.
    bakery.edit("pipelines/bread.yaml", "seed: 3", "seed: 4")
    second, brought_second = shop.ran("two")
    assert second != first
    shop.released()
    late = shop.asked(first_live)
    assert late.released is not None and late.released.at == released
    found = shop.asked()
    assert found.change is not None and found.change.number == brought_second

    # Rolled back in the environment alone: no change did that, the one that brought it is named.
    shop.rolled_back()
    found = shop.asked()
    assert found.prediction.source.version == "1"
    assert found.change is not None and found.change.number == brought_first
    assert found.released is not None and found.released.kind == "rollback"

    # And when another change brings it back to main, that one is.
    brought_again = shop.merged({MODEL: first})
    shop.released()
    found = shop.asked()
    assert found.prediction.source.version == "1"
    assert found.change is not None and found.change.number == brought_again


def test_an_answer_tells_which_rows_behind_its_model_were_erased_since(shop: Shop) -> None:
    repo = shop.repo
    shop.ran("erasing")
    served = repo.resolve(MAIN)
    before = shop.asked(served)
    assert before.erased == () and before.to_json()["erased"] == []
    erased_rows(repo, "sales", "id = 7", "Request 4711.", "ben", False)
    found = shop.asked(served)
    (told,) = found.erased
    assert told.startswith("rows of sales were erased at ") and told.endswith("Request 4711.")
    assert f"  since then     {told}" in Explained(found).to_text()
