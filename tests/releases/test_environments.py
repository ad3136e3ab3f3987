from __future__ import annotations

from datetime import timedelta

import pytest
from databases import on_both

from instep.canonical import JsonObject
from instep.errors import NotFoundError, RefusedError
from instep.findings import Finding, Severity
from instep.history.edits import Edit, publish
from instep.history.erasure import erase
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository
from instep.history.verify import blobs_of
from instep.releases import environments

pytestmark = on_both

CONFIG = "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}, trial: {}}\n"


def commit(repo: Repository, ref: str = "main", **models: int) -> str:
    changes: dict[str, JsonObject | None] = {
        f"model/{name}": {"version": str(number)} for name, number in models.items()
    }
    with repo.store.transaction() as tx:
        edit = Edit(repo.resolve(ref), changes, "ana", "m", "test")
        return publish(tx, repo, ref, edit).id


def release(
    repo: Repository, at: str, environment: str = "prod", *findings: Finding
) -> environments.Moved:
    with repo.store.transaction() as tx:
        return environments.release(
            tx, repo, environment, at, actor="ben", why="why", judge=lambda commit: findings
        )


def rollback(repo: Repository, only: str | None = None, *findings: Finding) -> environments.Moved:
    with repo.store.transaction() as tx:
        return environments.rollback(
            tx, repo, "prod", only=only, actor="ana", why="worse", judge=lambda commit: findings
        )


@pytest.fixture
def lake(repo: Repository) -> Repository:
    blob = repo.objects.put(CONFIG.encode())
    with repo.store.transaction() as tx:
        content: JsonObject = {"type": "instep.config.v1", "blob": blob}
        edit = Edit(repo.resolve("main"), {"config/instep": content}, "ana", "m", "test")
        publish(tx, repo, "main", edit)
    return repo


def live(repo: Repository) -> dict[str, str]:
    prod = next(one for one in environments.where(repo) if one.environment == "prod")
    return {model.key: str(model.content["version"]) for model in prod.models}


def test_an_environment_shows_what_was_released_until_the_next_release(lake: Repository) -> None:
    first = commit(lake, delay=1)
    release(lake, first)
    commit(lake, delay=2)
    assert live(lake) == {"model/delay": "1"}
    release(lake, lake.resolve("main"))
    assert live(lake) == {"model/delay": "2"}


def test_what_was_live_at_an_earlier_instant_is_still_told(lake: Repository) -> None:
    first = release(lake, commit(lake, delay=1))
    second = release(lake, commit(lake, delay=2))
    rollback(lake)
    before, between = first.at - timedelta(microseconds=1), second.at - timedelta(microseconds=1)
    (prod, trial) = environments.where(lake, between)
    assert [model.content["version"] for model in prod.models] == ["1"]
    assert (trial.environment, trial.commit) == ("trial", None)
    assert environments.where(lake, before)[0].commit is None


def test_a_model_is_live_since_its_own_release_not_the_latest(lake: Repository) -> None:
    first = release(lake, commit(lake, delay=1))
    release(lake, commit(lake, other=5))
    since = {m.key: m.since for m in environments.where(lake)[0].models}
    assert since["model/delay"] == first.at
    assert since["model/other"] > first.at


def test_a_rollback_of_one_key_keeps_the_others_and_is_labelled(lake: Repository) -> None:
    release(lake, commit(lake, delay=1, other=1))
    release(lake, commit(lake, delay=2, other=2))
    moved = rollback(lake, only="model/delay")
    assert live(lake) == {"model/delay": "1", "model/other": "2"}
    assert moved.lived_before is False
    assert moved.keys == ("model/delay",)


def test_a_rollback_of_all_goes_back_to_a_state_that_lived_before(lake: Repository) -> None:
    release(lake, commit(lake, delay=1, other=1))
    release(lake, commit(lake, delay=2, other=2))
    assert rollback(lake).lived_before is True
    assert live(lake) == {"model/delay": "1", "model/other": "1"}


def test_a_rollback_tells_what_the_gates_find_and_is_never_refused(lake: Repository) -> None:
    release(lake, commit(lake, delay=1))
    release(lake, commit(lake, delay=2))
    stop = Finding("not-met", "model/delay", Severity.STOP, "The error is too large.")
    for only in ("model/delay", None):
        assert rollback(lake, only, stop).findings == (stop,)


def test_no_environment_goes_to_a_commit_whose_bytes_were_erased(lake: Repository) -> None:
    def with_terms(text: str) -> str:
        content: JsonObject = {
            "type": "instep.contract.v1",
            "blob": lake.objects.put(text.encode()),
        }
        with lake.store.transaction() as tx:
            edit = Edit(lake.resolve("main"), {"contract/t": content}, "ana", "m", "test")
            return publish(tx, lake, "main", edit).id

    old = with_terms("old")
    release(lake, old)
    now = with_terms("now")
    release(lake, now)
    erase(lake, str(lake.content(old, "contract/t")["blob"]), "ben", "asked for", blobs_of)
    for environment in ("trial", "prod"):
        with pytest.raises(RefusedError, match="asked for") as caught:
            release(lake, old, environment)
        assert caught.value.kind == "erased"
    with pytest.raises(RefusedError, match="asked for") as refused:
        rollback(lake)
    assert refused.value.kind == "erased"
    assert lake.resolve("prod") == now


def test_nothing_to_go_back_to_is_refused(lake: Repository) -> None:
    with pytest.raises(RefusedError, match="never released"):
        rollback(lake)
    release(lake, commit(lake, delay=1))
    with pytest.raises(RefusedError, match="nothing was released before"):
        rollback(lake)
    with pytest.raises(RefusedError, match="never had another content"):
        rollback(lake, only="model/delay")
    with pytest.raises(NotFoundError, match="model/dealy"):
        rollback(lake, only="model/dealy")


def test_only_what_is_on_main_can_be_released(lake: Repository) -> None:
    with lake.store.transaction() as tx:
        create_ref(tx, "try", RefKind.BRANCH, lake.resolve("main"), owner="ana", at=lake.clock())
    head = commit(lake, "try", delay=1)
    with pytest.raises(RefusedError, match="only a reviewed state"):
        release(lake, head)


def test_what_a_merged_branch_held_on_its_way_cannot_be_released(lake: Repository) -> None:
    with lake.store.transaction() as tx:
        create_ref(tx, "try", RefKind.BRANCH, lake.resolve("main"), owner="ana", at=lake.clock())
    evil = commit(lake, "try", evil=1, delay=1)
    with lake.store.transaction() as tx:
        removal = Edit(evil, {"model/evil": None}, "ana", "m", "test")
        head = publish(tx, lake, "try", removal).id
        changes: dict[str, JsonObject | None] = {"model/delay": {"version": "1"}}
        edit = Edit(lake.resolve("main"), changes, "ana", "m", "test", merged=(head,))
        publish(tx, lake, "main", edit)
    for unreviewed in (evil, head):
        with pytest.raises(RefusedError) as caught:
            release(lake, unreviewed)
        assert caught.value.kind == "not-on-main"


def test_rolling_back_again_and_again_never_returns_to_what_was_rolled_back_from(
    lake: Repository,
) -> None:
    for version in (1, 2, 3, 4):
        release(lake, commit(lake, delay=version))
    seen = []
    for _ in range(3):
        rollback(lake)
        seen.append(live(lake)["model/delay"])
    assert seen == ["3", "2", "1"]
    with pytest.raises(RefusedError, match="nothing was released before"):
        rollback(lake)
    release(lake, commit(lake, delay=5))
    rollback(lake)
    assert live(lake) == {"model/delay": "1"}


def test_rolling_one_key_back_again_goes_further_back(lake: Repository) -> None:
    for version in (1, 2, 3):
        release(lake, commit(lake, delay=version, other=version))
    for expected in ("2", "1"):
        assert environments.has_earlier(lake, "prod", "model/delay")
        rollback(lake, only="model/delay")
        assert live(lake) == {"model/delay": expected, "model/other": "3"}
    assert not environments.has_earlier(lake, "prod", "model/delay")
    rollback(lake)
    assert live(lake) == {"model/delay": "2", "model/other": "2"}


def test_a_stop_of_a_gate_refuses_the_release_and_leaves_the_environment(lake: Repository) -> None:
    release(lake, commit(lake, delay=1))
    against = Finding("not-met", "model/delay", Severity.STOP, "The error is too large.")
    with pytest.raises(RefusedError, match="The error is too large") as caught:
        release(lake, commit(lake, delay=2), "prod", against)
    assert caught.value.kind == "release-refused"
    assert live(lake) == {"model/delay": "1"}


def test_an_environment_must_be_declared(lake: Repository) -> None:
    head = lake.resolve("main")
    for name in ("pord", "main"):
        with pytest.raises(NotFoundError, match="expected one of prod, trial"):
            release(lake, head, name)


def test_releasing_the_same_commit_twice_is_refused(lake: Repository) -> None:
    head = commit(lake, delay=1)
    release(lake, head)
    with pytest.raises(RefusedError, match="already"):
        release(lake, head)
