"""Colleagues in separate folders share one lake: PostgreSQL for its catalog, S3 for its files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import Bucket
from commands import start
from lakes import COLUMNS, appended, commit
from shop import CONFIG, ONLY_ORDERS, Shop, make_shop
from storm import Fault, storm

from instep.history.store import Database
from instep.lake import open_lake
from instep.tables.read import data_files
from instep.tables.small_files import MANY_FILES
from instep.tables.upkeep import look_after
from instep.tables.write import create_table

SECONDS = 120
AT_ONCE = 3


@pytest.fixture
def colleague(
    tmp_path: Path, bucket: Bucket, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Shop]:
    """Makes the project folder of one more colleague."""
    schema = f"shared_{bucket.name.replace('-', '_')}"
    database = Database(postgres_url, schema)
    monkeypatch.setenv("SHOP_DATABASE", database.url)

    def make(name: str, url: str = bucket.url) -> Shop:
        made = make_shop(tmp_path / name, ONLY_ORDERS)
        lake = (
            f"{{folder: lake, files: '{bucket.address}', endpoint: '{url}', "
            f"database: {{secret: SHOP_DATABASE}}, schema: {schema}}}"
        )
        config = CONFIG.replace("lake: lake\n", f"lake: {lake}\n")
        (made.folder / "instep.yaml").write_text(config)
        return made

    return make


def test_three_ingest_and_commit_at_once(colleague: Callable[..., Shop]) -> None:
    shops = [colleague(f"of-{number}") for number in range(AT_ONCE)]
    shops[0].merged()
    words = [[shop.month(2 * n + month) for month in (1, 2)] for n, shop in enumerate(shops)]
    begun = [
        start("ingest", *files, "--json", at=shop.folder)
        for shop, files in zip(shops, words, strict=True)
    ]
    for one in begun:
        done = one.done()
        assert done.code == 0, done
        states = [arrival["state"] for arrival in done.json["arrivals"]]
        assert states == ["merged"] * len(words[0])
    shown = [shop.must("show", "main", "--json").json for shop in shops]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["keys"]["table/sales"]["rows"] == 300 * len(words[0]) * AT_ONCE
    assert shown[0]["keys"]["table/sales"]["metadata_location"].startswith("s3://")
    shops[2].must("run", "demand", "--branch", "try")
    shops[1].must("doctor")


def test_one_edits_and_merges_what_the_other_compacts(colleague: Callable[..., Shop]) -> None:
    ana, ben = colleague("ana").merged(), colleague("ben")
    ana.must("ingest", *(ana.month(month) for month in (1, 2, 3)))
    (table,) = ben.must("compact", "sales", "--json").json["tables"]
    assert (table["before"]["files"], table["after"]["files"]) == (3, 1)
    for name in ("left", "right"):
        ben.must("branch", "make", name, "--at", "main")
    for shop, name, where in ((ana, "left", "id <= 100009"), (ben, "right", "id >= 300290")):
        with open_lake(shop.folder).edit(name, message=name, author="ana") as edit:
            edit.delete("sales", where=where)
            edit.create("counts", "select count(*) as n from sales")
            edit.drop("counts")
    ana.must("branch", "merge", "right", "left")
    for shop in (ana, ben):
        shown = shop.must("show", "left", "--json").json["keys"]["table/sales"]
        assert shown["rows"] == 900 - 10 - 10
        (sold,) = (
            open_lake(shop.folder)
            .at("left")
            .table("sales")
            .sql("select min(id), max(id) from sales")
            .to_pylist()
        )
        assert list(sold.values()) == [100_010, 300_289]
    assert ana.must("diff", "main", "left", "--json").json["keys"]
    ben.must("doctor")


def test_a_table_of_many_small_appends_is_compacted_by_itself(
    colleague: Callable[..., Shop],
) -> None:
    shop = colleague("one")
    shop.must("init")
    repo = open_lake(shop.folder).repo
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    told = []
    for number in range(MANY_FILES):
        table = appended(repo, table, range(number, number + 1))
        commit(repo, {"table/sales": table.to_content()})
        told.append(look_after(repo, "main", "sales", lambda _: False))
    assert set(told[:-1]) == {""}
    assert "32 files" in told[-1]
    assert len(data_files(repo.root, table)) == 1
    shop.must("doctor")


def test_a_lake_is_backed_up_to_a_folder_and_restored_from_it(
    colleague: Callable[..., Shop], tmp_path: Path
) -> None:
    shop = colleague("one").merged()
    shop.must("ingest", shop.month(1))
    copy = str(tmp_path / "copy")
    shop.must("backup", copy)
    (restored := make_shop(tmp_path / "restored")).must("restore", copy)
    then = shop.must("show", "main", "--json").json["keys"]["table/sales"]
    now = restored.must("show", "main", "--json").json["keys"]["table/sales"]
    assert now["rows"] == then["rows"] == 300
    assert now["metadata_location"].startswith(str(restored.folder))
    restored.must("doctor")


def test_a_backup_is_restored_to_a_bucket(
    colleague: Callable[..., Shop], tmp_path: Path, bucket: Bucket
) -> None:
    shop = colleague("one").merged()
    shop.must("ingest", shop.month(1))
    then = shop.must("show", "main", "--json").json["keys"]["table/sales"]
    shop.must("backup", copy := str(tmp_path / "copy"))
    other = colleague("two")
    path = other.folder / "instep.yaml"
    config = path.read_text().replace(f"{bucket.address}'", f"{bucket.address}-2'")
    path.write_text(config.replace("schema: shared_", "schema: again_"))
    killed = other.instep("restore", copy, env={"INSTEP_FAULT": "restore.files.after"})
    assert killed.code == -9
    other.must("restore", copy)
    now = other.must("show", "main", "--json").json["keys"]["table/sales"]
    assert now["rows"] == then["rows"] == 300
    assert now["metadata_location"].startswith(f"{bucket.address}-2/")
    other.must("doctor")
    done = other.instep("restore", copy, "--json")
    assert json.loads(done.out)["error"]["kind"] == "lake-exists"


HELD = """
import sys
from instep import faults
places = sys.argv.pop(1).split(",")

def wait(place):
    if places and place == places[0]:
        del places[0]
        print(place, flush=True)
        sys.stdin.readline()

faults.watch(wait)
from instep.cli.main import main
main()
"""


@pytest.mark.long
def test_a_writer_in_the_middle_of_an_arrival_loses_nothing_to_a_collection_elsewhere(
    colleague: Callable[..., Shop],
) -> None:
    shop, other = colleague("one").merged(), colleague("two")
    shop.must("ingest", shop.month(1))
    places = ["ingest.keep.after", "engine.copy.after", "file.write.after"]
    with subprocess.Popen(
        [sys.executable, "-c", HELD, ",".join(places), "ingest", shop.month(2)],
        cwd=shop.folder,
        env={**os.environ, "INSTEP_ACTOR": "ana"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        for place in places:
            assert held.stdout.readline() == f"{place}\n"
            found = [other.must("gc", "--keep", "0", "--json").json for _ in range(2)]
            assert sum(line["verdict"] == "needed" for line in found[1]["unreached"])
            held.stdin.write("go on\n")
            held.stdin.flush()
        held.communicate(timeout=SECONDS)
    assert held.returncode == 0
    for _ in range(3):
        other.must("gc", "--keep", "0")
    colleague("three").must("doctor")
    assert other.must("show", "main", "--json").json["keys"]["table/sales"]["rows"] == 600


def test_a_catalog_in_a_file_has_no_files_on_s3(tmp_path: Path, bucket: Bucket) -> None:
    config = f"lake: {{folder: lake, files: '{bucket.address}'}}\npeople: [ana]\n"
    (make_shop(tmp_path / "two").folder / "instep.yaml").write_text(config)
    done = Shop(tmp_path / "two").instep("init", "--json")
    assert json.loads(done.out)["error"]["kind"] == "database-needed"


def test_another_catalog_does_not_take_a_place_that_has_a_lake(
    colleague: Callable[..., Shop],
) -> None:
    one = colleague("one")
    one.must("init")
    assert json.loads(one.instep("init", "--json").out)["error"]["kind"] == "lake-exists"
    other = colleague("two")
    path = other.folder / "instep.yaml"
    path.write_text(path.read_text().replace("schema: shared_", "schema: other_"))
    done = other.instep("init", "--json")
    assert json.loads(done.out)["error"]["kind"] == "lake-exists"


def test_an_arrival_that_the_store_refuses_leaves_main_where_it_was(
    colleague: Callable[..., Shop], bucket: Bucket
) -> None:
    with storm(bucket.url) as weather:
        shop = colleague("one", weather.url).merged()
        before = shop.must("status", "--json").json["main"]
        weather.always = Fault.DENIED
        done = shop.instep("ingest", shop.month(1), "--json")
        assert json.loads(done.out)["error"]["kind"] == "bucket-access-denied"
        weather.always = None
        assert shop.must("status", "--json").json["main"] == before
        shop.must("ingest", shop.month(1))
        assert shop.must("show", "main", "--json").json["keys"]["table/sales"]["rows"] == 300
