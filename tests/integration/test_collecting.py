"""Garbage collection and erasure by command, while other processes write."""

from __future__ import annotations

from pathlib import Path

import garbage
from commands import start
from shop import Shop, make_shop

from instep.clock import system_clock
from instep.history.forgetting import forgotten_commits
from instep.history.repository import Repository, open_repository
from instep.tables.content import TableContent
from instep.tables.read import row_count


def opened(shop: Shop) -> Repository:
    return open_repository(shop.folder / "lake", system_clock)


def test_collecting_while_others_ingest_and_run_loses_nothing(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    months = [shop.month(number) for number in (1, 2, 3, 5)]
    shop.must("ingest", *months[:3])
    lost = opened(shop).objects.put(b"left by somebody who died")
    others = (("run", "demand", "--branch", "try"), ("ingest", *months[3:]))
    work = [start(*words, at=shop.folder) for words in others]
    collections = 0
    while any(child.is_running for child in work):
        found = shop.must("gc", "--keep", "0", "--json").json
        assert found["left_alone"] == []
        collections += 1
    assert collections > 1
    for child in work:
        done = child.done()
        assert done.code == 0, done
    for _ in range(2):
        shop.must("gc", "--keep", "0")
    shop.must("doctor")
    repo = opened(shop)
    assert not repo.objects.has(lost)
    garbage.needs(repo)
    sales = TableContent.from_content(repo.content(repo.resolve("main"), "table/sales"))
    assert row_count(repo.root, sales) == 1200
    shop.must("run", "demand", "--branch", "again")


def test_a_dry_run_tells_what_a_collection_would_do(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    opened(shop).objects.put(b"left")
    told = shop.must("gc", "--dry-run")
    assert "would be condemned" in told.out
    assert shop.must("gc", "--dry-run", "--json").json["unreached"][0]["bytes"] == 4
    assert "condemned now is deleted by a later" in shop.must("gc").out
    assert "not condemned for long enough" in shop.must("gc").out
    assert "deleted" in shop.must("gc", "--keep", "0").out
    assert "Nothing is unreached." in shop.must("gc").out


def test_a_lake_is_whole_after_a_run_was_forgotten(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    shop.must("ingest", *(shop.month(number) for number in (1, 2, 3)))
    shop.must("run", "demand", "--branch", "try")
    shop.must("doctor")
    repo = opened(shop)
    made = repo.resolve("try")
    garbage.delete_branch(repo, "try")
    for _ in range(4):
        shop.must("gc", "--keep", "0")
    with repo.store.reading() as tx:
        assert forgotten_commits(tx) == {made}
        [(runtime,)] = tx.rows("select runtime_blob from runs")
    assert not repo.objects.has(runtime)
    shop.must("doctor")
    again = shop.must("run", "demand", "--branch", "again", "--json").json
    assert again["output_commit"] == repo.resolve("again")
    shop.must("doctor")


def test_an_erased_file_cannot_be_let_in(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop").merged()
    shop.must("ingest", shop.month(1))
    file = shop.month(2, header="id,sold_at,shop,sum,paid")
    held = shop.instep("ingest", file, "--json")
    assert held.code == 5
    number = str(held.json["error"]["change"])
    digest = shop.must("review", number, "--json").json["evidence"]["file"]["digest"]
    why = "A customer asked for it."
    erased = shop.must("erase", digest, "--why", why, actor="ben")
    assert f"by ben at {erased.out.partition(' at ')[2][:4]}" in erased.out
    assert shop.must("erase", digest, "--why", "again", "--json", actor="ben").json[0]["why"] == why
    shop.must("doctor")
    shop.must("backup", "copy")
    refused = shop.instep("accept", number, "--rename", "sum=amount", actor="ben")
    assert refused.code == 3
    assert why in refused.err
    again = shop.instep("ingest", file)
    assert again.code == 5
    assert why in again.err
