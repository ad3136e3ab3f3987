"""A plan on a real lake: what would be computed, and what does not fit is refused at once."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_builders import SALES_ONLY, TRAINING, Bakery

from instep.clock import Window, parse_instant
from instep.engines.engine import DeleteFile, Slice
from instep.errors import InvalidError
from instep.history.objects import file_digest
from instep.pipelines.messages import file_set_json, parse_file_set
from instep.pipelines.plan import Cut, RunPlan
from instep.pipelines.prepare import (
    Planner,
    check_slices_used,
    disk_source,
    lake_source,
    table_of,
)
from instep.pipelines.runtime import Package, Runtime
from instep.tables.read import file_set, row_count
from instep.tables.write import data_folder, replace

RUNTIME = Runtime("CPython 3.11", "Linux", {"duckdb": Package("2.0", "digest")})


def planned(bakery: Bakery, ref: str = "main") -> RunPlan:
    source = disk_source(bakery.folder, "bread")
    found = Planner(bakery.repo, bakery.repo.resolve(ref), source, RUNTIME).plan_all()
    check_slices_used(found)
    return found


def fault(bakery: Bakery) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        planned(bakery)
    return caught.value


def test_a_plan_says_what_is_read_and_what_it_rests_on(bakery: Bakery) -> None:
    found = planned(bakery)
    assert found.reads == {"table/sales", "table/weather"}
    (step,) = found.steps
    assert [str(piece.window) for piece in step.pieces] == [
        "2013-01-01 to 2013-02-01",
        "2013-02-01 to 2013-03-01",
        "2013-03-01 to 2013-04-01",
    ]
    january = {one.table: one for one in step.pieces[0].inputs}
    assert [len(one.files or ()) for one in january.values()] == [1, 2]  # December's last hours
    assert "first run: a guess" in found.estimate.basis
    assert found.to_json()["commit"] == bakery.repo.resolve("main")


def test_a_step_after_one_that_is_computed_waits_for_it(bakery: Bakery) -> None:
    bakery.write("pipelines/bread.yaml", SALES_ONLY + TRAINING)
    bakery.write("steps/late.py", "def fit(train, params, seed):\n    pass\n")
    training = planned(bakery).steps[1]
    assert [str(reason) for reason in training.pieces[0].reasons] == [
        "an input is computed in this run (orders)"
    ]
    assert training.pieces[0].key is None
    assert training.estimate.rows > 0


def test_the_lake_and_the_disk_give_the_same_plan(bakery: Bakery) -> None:
    bakery.run()
    commit = bakery.repo.resolve("try")
    kept = Planner(bakery.repo, commit, lake_source(bakery.repo, commit, "bread"), RUNTIME)
    assert kept.plan_all().to_json() == planned(bakery, "try").to_json()


def test_rows_deleted_in_place_are_not_read_and_change_what_a_step_rests_on(
    bakery: Bakery,
) -> None:
    root = bakery.repo.root
    table = table_of(bakery.repo, bakery.repo.resolve("main"), "sales")
    path = file_set(root, table, "sales").files[-1]
    place = data_folder(root, table) / "deletes.parquet"
    duckdb.execute(
        f"COPY (SELECT '{path}' AS file_path, 0::BIGINT AS pos) TO '{place}' "
        "(FORMAT parquet, FIELD_IDS {file_path: 2147483546, pos: 2147483545})"
    )
    deletes = DeleteFile(str(place), 1, place.stat().st_size, file_digest(place), path)
    after = replace(root, table, (), (), deletes=[deletes], at=bakery.repo.clock())
    bakery.publish({"table/sales": after})
    commit = bakery.repo.resolve("main")

    planner = Planner(bakery.repo, commit, disk_source(bakery.folder, "bread"), RUNTIME)
    files = planner.file_set("sales", None)
    facts = planner.facts_of("sales", None)

    # The bytes are checked before a set of files is handed to a worker.
    assert parse_file_set(file_set_json(files)) == dataclasses.replace(files, digests={})
    assert files.deletes == {path: (deletes,)}
    assert len(bakery.read(files)) == row_count(root, table) - 1
    assert facts is not None
    assert deletes.digest in {one for file in facts.files for one in file.digests}


@pytest.mark.parametrize(
    ("before", "after", "kind", "says"),
    [
        ("sales: sold_at", "sales: sold_on", "no-such-column", 'Did you mean "sold_at"?'),
        ("sales: sold_at", "slaes: sold_at, sales: sold_at", "unused-slice", '"sales"'),
        ("reads: orders", "reads: order", "no-such-table", 'Did you mean "orders"?'),
        ("[shop, amount, rain]", "[shop, amunt]", "no-such-column", 'Did you mean "amount"?'),
        ("target: late", "target: lat", "no-such-column", "pipelines/bread.yaml:14"),
        ("column: known_at", "column: known", "no-such-column", 'Did you mean "known_at"?'),
        ("slices: {sales: sold_at, weather: {time: seen_at, lookback: 2 hours}}", "",
         "nothing-to-cut", "sales, weather"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_tables_is_refused_with_its_place(
    bakery: Bakery, before: str, after: str, kind: str, says: str
) -> None:
    bakery.write("steps/late.py", "def fit(train, params, seed):\n    pass\n")
    text = SALES_ONLY + TRAINING
    assert before in text
    bakery.write("pipelines/bread.yaml", text.replace(before, after))
    error = fault(bakery)
    assert error.kind == kind
    assert says in str(error)


def test_a_step_may_read_only_what_earlier_steps_make(bakery: Bakery) -> None:
    more = "  - {step: more, sql: steps/more.sql, writes: more}\n    #"
    text = SALES_ONLY.replace("slices:", "# ").replace("    every: 1 month ", more)
    bakery.write("pipelines/bread.yaml", text)
    bakery.write("steps/orders.sql", "select id from more")
    bakery.write("steps/more.sql", "select id from sales")
    assert fault(bakery).kind in ("steps-out-of-order", "no-such-table")
    bakery.put("more", "select 1 as id")
    assert fault(bakery).kind == "steps-out-of-order"
    bakery.write("steps/orders.sql", "select id from sales")
    bakery.write("steps/more.sql", "select id from orders")
    assert [step.output for step in planned(bakery).steps] == ["table/orders", "table/more"]


@given(
    st.lists(st.tuples(st.integers(-40, 140), st.integers(1, 60)), max_size=6),
    st.sampled_from([("sales", "sold_at"), ("weather", "seen_at")]),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_are_decoded_once_and_cut_as_the_table_cuts_them(
    bakery: Bakery, spans: list[tuple[int, int]], cut: tuple[str, str]
) -> None:
    name, column = cut
    repo, commit = bakery.repo, bakery.repo.resolve("main")
    table = table_of(repo, commit, name)
    start = parse_instant("2013-01-01")
    windows = [
        Window(start + timedelta(days=day), start + timedelta(days=day + days))
        for day, days in spans
    ]
    expected = [file_set(repo.root, table, name, Slice(column, window)) for window in windows]
    planner = Planner(repo, commit, disk_source(bakery.folder, "bread"), RUNTIME)
    planner.file_set(name, None)
    metadata = repo.root / "tables" / table.uuid / "metadata"
    away = metadata.rename(metadata.with_name("away"))  # whatever is read again is missed
    try:
        assert [planner.file_set(name, Slice(column, window)) for window in windows] == expected
        for window, wanted in zip(windows, expected, strict=True):
            facts = planner.facts_of(name, Cut(column, window))
            assert facts is not None and len(facts.files) == len(wanted.files)
    finally:
        away.rename(metadata)


def test_a_changed_runtime_is_named_by_its_packages(bakery: Bakery) -> None:
    bakery.run()
    source = disk_source(bakery.folder, "bread")
    planner = Planner(bakery.repo, bakery.repo.resolve("try"), source, RUNTIME)
    (reason,) = planner.plan_all().steps[0].pieces[0].reasons
    assert str(reason).startswith("runtime changed (interpreter ")
    assert "more" in str(reason)
