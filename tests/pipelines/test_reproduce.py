"""A run again gives one of three answers, twice in a row, and leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_builders import (
    LATE,
    ORDERS,
    SALES,
    SALES_ONLY,
    TRAINING,
    WEATHER,
    Bakery,
    quiet,
)

from instep.engines.duckdb import DuckDB
from instep.engines.engine import FileSet
from instep.engines.schema import Column
from instep.errors import InvalidError, NotFoundError, RefusedError
from instep.history.refs import list_refs
from instep.models.sameness import Sameness
from instep.pipelines.execute import numbered
from instep.pipelines.prepare import table_of
from instep.pipelines.reproduce import Reproduction, compare_rows, reproduce_run, verdict_name
from instep.tables import write
from instep.tables.read import schema_of


def again(bakery: Bakery, run: str) -> Reproduction:
    return reproduce_run(bakery.repo, run, bakery.folder, quiet)


def test_a_run_is_identical_twice_in_a_row_whatever_the_project_has_become(
    bakery: Bakery,
) -> None:
    bakery.write("pipelines/bread.yaml", SALES_ONLY + TRAINING)
    bakery.write("steps/late.py", LATE)
    run = bakery.run().run.id
    bakery.write("pipelines/bread.yaml", SALES_ONLY)
    bakery.write("steps/orders.sql", "select 1 as id")
    (bakery.folder / "steps/late.py").unlink()
    with bakery.repo.store.reading() as tx:
        refs = list_refs(tx)
    tables = sorted((bakery.repo.root / "tables").iterdir())
    for _ in range(2):
        found = again(bakery, run)
        assert [(one.key, verdict_name(one.sameness)) for one in found.outputs] == [
            ("table/orders", "identical"),
            ("model/late", "identical"),
        ]
        assert found.runtime == ()
    with bakery.repo.store.reading() as tx:
        assert list_refs(tx) == refs
    assert sorted((bakery.repo.root / "tables").iterdir()) == tables
    assert not list((bakery.repo.root / "staging").iterdir())


def columns_of(bakery: Bakery, table: str) -> dict[str, Column]:
    content = table_of(bakery.repo, bakery.repo.resolve("main"), table)
    return {one.name: one for one in schema_of(bakery.repo.root, content).columns}


def with_columns(bakery: Bakery, table: str, columns: Iterable[Column]) -> None:
    """Gives a table of main other columns; its files stay."""
    repo = bakery.repo
    before = table_of(repo, repo.resolve("main"), table)
    after = write.set_columns(repo.root, before, tuple(columns), at=repo.clock())
    bakery.publish({f"table/{table}": after})


def again_new(bakery: Bakery, table: str, name: str) -> None:
    """Drops a column and adds it again: null in every row there is."""
    found = columns_of(bakery, table)
    with_columns(bakery, table, [one for one in found.values() if one.name != name])
    with_columns(bakery, table, found.values())


def exchange(bakery: Bakery, table: str, one: str, other: str) -> None:
    """Lets two columns change names."""
    repo = bakery.repo
    found = table_of(repo, repo.resolve("main"), table)
    for before, after in ((one, "between"), (other, one), ("between", other)):
        found = write.rename_column(repo.root, found, before, after, at=repo.clock())
    bakery.publish({f"table/{table}": found})


def retype(bakery: Bakery, table: str, name: str, before: str, after: str) -> None:
    found = columns_of(bakery, table)
    assert found[name].type == before
    found[name] = replace(found[name], type=after)
    with_columns(bakery, table, found.values())


SCHEMA_ONLY: dict[str, Callable[[Bakery], None]] = {
    "a column that is read is new": lambda bakery: again_new(bakery, "weather", "rain"),
    "a column that is carried is new": lambda bakery: again_new(bakery, "sales", "shop"),
    "two columns change names": lambda bakery: exchange(bakery, "weather", "rain", "snow"),
    "a column is wider": lambda bakery: retype(bakery, "weather", "wind", "int", "long"),
    "columns change places": lambda bakery: with_columns(
        bakery, "weather", reversed(columns_of(bakery, "weather").values())
    ),
    "a column that nothing reads is new": lambda bakery: again_new(bakery, "sales", "till"),
}


@given(st.permutations(list(SCHEMA_ONLY)))
@settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_after_a_change_of_schema_alone_a_run_is_what_it_is_from_nothing(
    bakery: Bakery, order: list[str]
) -> None:
    bakery.put("sales", f"select *, 1 as till from ({SALES})", at="sold_at", anew=True)
    weather = f"select *, 7.0::double as snow, 3::int as wind from ({WEATHER})"
    bakery.put("weather", weather, at="seen_at", anew=True)
    bakery.write("steps/orders.sql", ORDERS.replace("weather.rain", "weather.rain, weather.wind"))
    for number, name in enumerate(order):
        bakery.run(f"before-{number}")
        SCHEMA_ONLY[name](bakery)
        result = bakery.run(f"after-{number}")
        assert verdict_name(again(bakery, result.run.id).sameness) == "identical", name
        assert (result.steps[0].computed == 0) == (name == "a column that nothing reads is new")


def test_another_runtime_is_named(bakery: Bakery) -> None:
    result = bakery.run()
    then = bakery.repo.objects.get(result.run.runtime_blob)
    other = then.replace(b'"duckdb":["', b'"duckdb":["0')
    blob = bakery.repo.objects.put(other)
    with bakery.repo.store.transaction() as tx:
        tx.execute("update runs set runtime_blob = ?", (blob,))
    assert again(bakery, result.run.id).runtime[0].startswith("duckdb 0")


def test_other_rows_than_were_kept_are_different(bakery: Bakery) -> None:
    run = bakery.run().run
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-03-01")
    fewer = bakery.run("fewer").run
    with bakery.repo.store.transaction() as tx:  # as if the run had published fewer months
        outputs = json.dumps(dict(fewer.outputs))
        tx.execute("update runs set outputs = ? where id = ?", (outputs, run.id))
    found = again(bakery, run.id)
    assert verdict_name(found.sameness) == "different"
    assert "rows then" in str(found.sameness)


def test_only_a_run_that_succeeded_can_be_reproduced(bakery: Bakery) -> None:
    with pytest.raises(NotFoundError) as missing:
        again(bakery, "run_0000")
    assert missing.value.kind == "no-such-run"
    bakery.run("one")
    bakery.run("two")
    with pytest.raises(InvalidError) as ambiguous:
        again(bakery, "run_0")
    assert ambiguous.value.kind == "ambiguous-run"
    run = bakery.run("three").run.id
    with bakery.repo.store.transaction() as tx:
        tx.execute("update runs set state = 'failed'")
    with pytest.raises(RefusedError) as refused:
        again(bakery, run)
    assert refused.value.kind == "run-not-finished"


def rows(folder: Path, sql: str) -> FileSet:
    with DuckDB(folder / "scratch") as engine:
        schema = numbered(engine.describe(sql))
        files = engine.write(sql, schema, folder)
    return FileSet("x", tuple(file.path for file in files), schema)


@pytest.mark.parametrize(
    ("then", "now", "answer"),
    [
        ("select 1 as a, 0.3::double as f", "select 1 as a, 0.3::double as f", "identical"),
        ("select unnest([1, 2]) as a", "select unnest([2, 1]) as a", "identical"),
        ("select null::int as a", "select null::int as a", "identical"),
        ("select 1 as a, (0.1::double + 0.2) as f", "select 1 as a, 0.3::double as f",
         "equal but for float summation order"),
        ("select 1 as a, 0.3::double as f", "select 1 as a, 0.31::double as f", "different"),
        ("select 1 as a, 0.3::double as f", "select 2 as a, 0.3::double as f", "different"),
        ("select 1 as a, 0.3::double as f", "select 1 as a, null::double as f", "different"),
        ("select 1 as a, 'nan'::double as f", "select 1 as a, 1.0::double as f", "different"),
        ("select 1 as a", "select unnest([1, 1]) as a", "different"),
        ("select unnest([1, 1, 2]) as a", "select unnest([1, 2, 2]) as a", "different"),
        ("select 1 as a", "select 1 as b", "different"),
    ],
)  # fmt: skip
def test_rows_are_compared_as_multisets(tmp_path: Path, then: str, now: str, answer: str) -> None:
    found: Sameness = compare_rows(rows(tmp_path, then), rows(tmp_path, now), tmp_path / "tmp")
    assert verdict_name(found) == answer
