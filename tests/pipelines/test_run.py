"""A run publishes everything as one commit, or nothing; it computes only what changed."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pipeline_builders import ORDERS, SALES_ONLY, Bakery

from instep.clock import Window, parse_instant
from instep.engines.duckdb import DuckDB
from instep.engines.engine import Slice
from instep.errors import (
    ConflictError,
    InstepError,
    InternalError,
    InvalidError,
    RefusedError,
    UnavailableError,
)
from instep.history.edits import Edit, publish
from instep.history.refs import RefKind, create_ref, find_ref
from instep.models.sameness import Identical
from instep.pipelines.config import parse_pipeline
from instep.pipelines.project import RunBudget
from instep.pipelines.records import (
    RunState,
    extend_lease,
    fail_lost_runs,
    load_run,
)
from instep.pipelines.reproduce import reproduce_run
from instep.pipelines.run import RunRequest, run_pipeline
from instep.tables.content import TableContent
from instep.tables.read import data_files, file_set, schema_of


def head(bakery: Bakery, name: str) -> str | None:
    with bakery.repo.store.reading() as tx:
        ref = find_ref(tx, name)
    return ref.commit if ref else None


def fails(bakery: Bakery, family: type[InstepError], kind: str) -> InstepError:
    """Holds that a run fails so, that no branch has anything of it, and that it is recorded."""
    before = head(bakery, "try"), head(bakery, "main")
    with pytest.raises(family) as caught:
        bakery.run()
    assert caught.value.kind == kind
    assert (head(bakery, "try"), head(bakery, "main")) == before
    return caught.value


def last_run_state(bakery: Bakery) -> RunState:
    return RunState(run_states(bakery)[-1])


def run_states(bakery: Bakery) -> list[str]:
    with bakery.repo.store.reading() as tx:
        return [str(state) for (state,) in tx.rows("select state from runs order by started_at")]


def test_a_run_publishes_its_pipeline_and_its_outputs_as_one_commit(bakery: Bakery) -> None:
    result = bakery.run()
    commit = bakery.repo.commit(bakery.repo.resolve("try"))
    assert result.changed == ("pipeline/bread", "table/orders")
    assert result.captured == ("pipeline/bread",)
    assert commit.id == result.run.output_commit
    assert commit.parents == (bakery.repo.resolve("main"),)
    assert commit.origin == result.run.id
    assert len(bakery.rows("try", "orders")) == 24 * 90


def test_a_run_is_recorded_with_what_went_in_and_what_came_out(bakery: Bakery) -> None:
    result = bakery.run()
    with bakery.repo.store.reading() as tx:
        run = load_run(tx, result.run.id[:20])
    assert run == result.run
    assert run.state is RunState.SUCCEEDED
    assert set(run.code) == {"pipelines/bread.yaml", "steps/orders.sql"}
    assert run.outputs["table/orders"] == bakery.repo.content(
        bakery.repo.resolve("try"), "table/orders"
    )
    assert run.estimated["basis"] != ""
    steps = run.actual["steps"]
    assert isinstance(steps, dict) and steps["orders"]["seconds"] > 0
    assert not (bakery.repo.root / "staging" / run.id).exists()


def test_a_second_run_reuses_everything_and_makes_no_commit(bakery: Bakery) -> None:
    first = bakery.run()
    second = bakery.run()
    assert second.run.output_commit == first.run.output_commit
    assert second.changed == ()
    assert [(step.computed, step.reused) for step in second.steps] == [(0, 3)]


def test_only_the_months_whose_inputs_changed_are_computed(bakery: Bakery) -> None:
    bakery.run()
    before = bakery.files("try", "orders")
    bakery.put("sales", "select 9000 as id, timestamptz '2013-02-05' as sold_at, "
               "'a' as shop, 70.0::double as amount")  # fmt: skip
    with bakery.repo.store.transaction() as tx:  # the branch takes main's tables
        main = bakery.repo.resolve("main")
        changes = {"table/sales": bakery.repo.content(main, "table/sales")}
        base = bakery.repo.resolve("try")
        publish(tx, bakery.repo, "try", Edit(base, changes, "ana", "sales", "test"))
    result = bakery.run()
    assert [(step.computed, step.reused) for step in result.steps] == [(1, 2)]
    after = bakery.files("try", "orders")
    assert len(before & after) == 2
    assert len(bakery.rows("try", "orders")) == 24 * 90 + 1


def test_a_month_more_of_slice_computes_one_month_and_keeps_the_table(bakery: Bakery) -> None:
    bakery.run()
    uuid = bakery.repo.content(bakery.repo.resolve("try"), "table/orders")["uuid"]
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-05-01")
    result = bakery.run()
    assert [(step.computed, step.reused) for step in result.steps] == [(1, 3)]
    assert bakery.repo.content(bakery.repo.resolve("try"), "table/orders")["uuid"] == uuid


def test_a_month_less_of_slice_drops_its_rows_and_computes_nothing(bakery: Bakery) -> None:
    bakery.run()
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-03-01")
    result = bakery.run()
    assert [(step.computed, step.reused) for step in result.steps] == [(0, 2)]
    assert len(bakery.rows("try", "orders")) == 24 * 59


def test_another_branch_reuses_what_the_first_computed(bakery: Bakery) -> None:
    bakery.run("try")
    result = bakery.run("other")
    assert [(step.computed, step.reused) for step in result.steps] == [(0, 3)]
    assert bakery.rows("other", "orders") == bakery.rows("try", "orders")


def test_month_by_month_gives_the_same_table_as_the_whole(bakery: Bakery) -> None:
    bakery.run("monthly")
    bakery.edit("pipelines/bread.yaml", "    every: 1 month ", "    #")
    bakery.run("whole")
    assert len(bakery.files("whole", "orders")) == 1
    assert bakery.rows("monthly", "orders") == bakery.rows("whole", "orders")


OWN_PAST = """\
select id, sold_at, shop, amount,
    count(*) over (partition by shop order by sold_at
        range between interval 7 day preceding and interval 1 hour preceding) as before
from sales
"""
"""A history of one's own as a feature: how much the shop sold in the week before a sale."""


def of_own_past(bakery: Bakery, *, every: str = "every: 1 month", sql: str = OWN_PAST) -> None:
    text = SALES_ONLY.replace("sales: sold_at, ", "sales: {time: sold_at, lookback: 7 days}, ")
    text = text.replace(", weather: {time: seen_at, lookback: 2 hours}", "")
    bakery.write("pipelines/bread.yaml", text.replace("every: 1 month", every))
    bakery.write("steps/orders.sql", sql)


@pytest.mark.parametrize("every", ["every: 1 month", "every: 10 days", "why: in one go"])
@pytest.mark.parametrize("start", ["2013-01-01", "2013-02-03"])
def test_ones_own_past_is_the_same_by_periods_as_in_one_go_and_no_row_is_written_twice(
    bakery: Bakery, every: str, start: str
) -> None:
    of_own_past(bakery, every=every)
    bakery.edit(
        "pipelines/bread.yaml",
        "    why: One row per sale, with the weather of the hour before.\n",
        "",
    )
    bakery.edit("pipelines/bread.yaml", "from: 2013-01-01", f"from: {start}")
    bakery.run()

    content = bakery.repo.content(bakery.repo.resolve("main"), "table/sales")
    with DuckDB(bakery.folder / "scratch") as engine:
        engine.view(file_set(bakery.repo.root, TableContent.from_content(content), "sales"))
        whole = engine.rows(
            f"select * from ({OWN_PAST}) where sold_at >= '{start}' and sold_at < '2013-04-01' "
            "order by all"
        )
    assert bakery.rows("try", "orders") == whole
    assert max(int(str(row[4])) for row in whole) == 56, "a week of every third hour"


JOINED = "w.seen_at = date_trunc('hour', s.sold_at) - interval 1 hour"
OF_SALES = "sales: sold_at, weather: {time: seen_at, lookback: 2 hours}"
OWN = "sales: {time: sold_at, lookback: 7 days}"
OWN_AND_CUT = f"{OWN}, weather: seen_at"
OWN_AND_LONGER = f"{OWN}, weather: {{time: seen_at, lookback: 8 days}}"
BOTH = "select s.id, s.sold_at, w.seen_at, w.rain"


@pytest.mark.parametrize(
    ("slices", "sql", "is_refused"),
    [
        (OF_SALES, f"{BOTH} from sales s join weather w on {JOINED}", False),
        (OF_SALES, f"{BOTH} from weather w join sales s on {JOINED}", False),
        (OF_SALES, f"{BOTH} from weather w, sales s where {JOINED}", False),
        (OF_SALES, f"{BOTH} from weather w right join sales s on {JOINED}", False),
        (OF_SALES, f"{BOTH} from weather w left join sales s on {JOINED}", True),
        (OF_SALES, f"{BOTH} from sales s full join weather w on {JOINED}", True),
        (OF_SALES, f"with a as (from weather) {BOTH} from (from a) w join sales s on {JOINED}",
         False),
        (OF_SALES, f"with j as ({BOTH} from weather w join sales s on {JOINED}) select * from j "
         "union all select id, sold_at, sold_at, 0 from sales", False),
        (OF_SALES, "select sold_at, 1 as n from sales union all select seen_at, 2 from weather",
         True),
        (OF_SALES, "select seen_at as sold_at, 1 as n from weather union all "
         "select sold_at, 2 from sales", True),
        (OF_SALES, f"select s.id, s.sold_at, max(w.rain) as rain from weather w join sales s on "
         f"{JOINED} group by all", False),
        (OF_SALES, "select w.seen_at as sold_at, count(*) as n from weather w join sales s "
         "on s.sold_at >= w.seen_at and s.sold_at < w.seen_at + interval 2 hour group by 1", True),
        (OF_SALES, "select distinct w.seen_at as sold_at from weather w join sales s "
         "on s.sold_at >= w.seen_at and s.sold_at < w.seen_at + interval 2 hour", True),
        (OF_SALES, f"select s.id, s.sold_at from sales s semi join weather w on {JOINED}", False),
        (OWN, "select *, lag(amount, 3) over (order by sold_at) as before from sales s", False),
        (OWN, "with l as (select *, lag(amount, 3) over (order by sold_at) as before from sales) "
         "select l.* from (values (1)) v(n) cross join l", False),
        (OWN, f"{BOTH} from weather w right join sales s on {JOINED}", False),
        (OWN, f"{BOTH} from weather w join sales s on {JOINED}", False),
        (OWN, "select sold_at, 1 as n from sales union all select sold_at, 2 from sales", False),
        (OWN, "select b.sold_at, a.id from sales a join sales b "
         "on b.sold_at = a.sold_at - interval 1 day", True),
        (OWN_AND_CUT, f"{BOTH} from weather w right join sales s on {JOINED}", True),
        (OWN_AND_CUT, "select seen_at as sold_at, 1 as n from weather union all "
         "select sold_at, 2 from sales", True),
        (OWN_AND_CUT, "select seen_at as sold_at, 1 as n from weather union all "
         "(select seen_at, 2 from weather except select sold_at, 2 from sales)", False),
        (OWN_AND_LONGER, f"{BOTH} from weather w join sales s on {JOINED}", True),
        (OWN_AND_LONGER, f"{BOTH} from sales s left join weather w on {JOINED}", True),
        (OWN_AND_LONGER, f"{BOTH} from sales s positional join weather w", True),
    ],
)  # fmt: skip
def test_months_write_each_row_of_the_slice_once_however_from_is_written_or_are_refused(
    bakery: Bakery, slices: str, sql: str, is_refused: bool
) -> None:
    old = "sales: sold_at, weather: {time: seen_at, lookback: 2 hours}"
    bakery.edit("pipelines/bread.yaml", old, slices)
    bakery.write("steps/orders.sql", sql)
    if is_refused:
        error = fails_before_it_starts(bakery, "rows-without-time")
        assert ("`time: sold_at`" in str(error)) == ("union" not in sql)
        return
    bakery.run()

    config = parse_pipeline((bakery.folder / "pipelines/bread.yaml").read_text(), "p.yaml")
    with DuckDB(bakery.folder / "scratch") as engine:
        for table in ("sales", "weather"):
            content = bakery.repo.content(bakery.repo.resolve("main"), f"table/{table}")
            files = file_set(bakery.repo.root, TableContent.from_content(content), table)
            cut = config.slice_of(table, config.slice)
            engine.view(replace(files, slice=Slice(*cut) if cut else None))
        whole = engine.rows(
            f"select * from ({sql}) where sold_at >= '2013-01-01' and sold_at < '2013-04-01' "
            "order by all"
        )
    assert bakery.rows("try", "orders") == whole
    assert len(whole) >= 24 * 90


def test_rows_of_a_period_that_are_computed_are_told_by_the_column_that_is_named(
    bakery: Bakery,
) -> None:
    daily = """\
select *, sum(sold) over (partition by shop order by day
    range between interval 7 day preceding and interval 1 day preceding) as before
from (select shop, date_trunc('day', sold_at) as day, sum(amount) as sold from sales group by all)
"""
    of_own_past(bakery, sql=daily)
    error = fails_before_it_starts(bakery, "rows-without-time")
    assert "Select sales.sold_at as it is, or name the column with `time`" in str(error)
    bakery.edit("pipelines/bread.yaml", "every: 1 month", "every: 1 month\n    time: dya")
    assert 'Did you mean "day"?' in str(fails_before_it_starts(bakery, "no-such-column"))
    bakery.edit("pipelines/bread.yaml", "time: dya", "time: day")

    bakery.run()

    rows = bakery.rows("try", "orders")
    assert len(rows) == 3 * 90 == len({row[:2] for row in rows})
    february = [row for row in rows if str(row[1]).startswith("2013-02-01")]
    assert all(row[3] is not None for row in february), "January was read, and not written again"


def test_a_period_that_was_written_with_its_lookback_is_computed_again(bakery: Bakery) -> None:
    of_own_past(bakery)
    bakery.run()
    assert bakery.run().steps[0].reused == 3
    bakery.edit("steps/orders.sql", "id, sold_at,", "id, sold_at + interval 0 day as moment,")
    bakery.edit("pipelines/bread.yaml", "every: 1 month", "every: 1 month\n    time: moment")
    bakery.edit("steps/orders.sql", "order by sold_at", "order by moment")
    assert bakery.run().steps[0].computed == 3
    rows = bakery.rows("try", "orders")
    assert len(rows) == len({row[0] for row in rows})


def fails_before_it_starts(bakery: Bakery, kind: str) -> InstepError:
    with pytest.raises(InstepError) as caught:
        bakery.run()
    assert caught.value.kind == kind
    assert head(bakery, "try") is None
    return caught.value


def test_weather_before_the_slice_is_read_as_far_as_the_lookback(bakery: Bakery) -> None:
    bakery.run()
    rain = [row[4] for row in bakery.rows("try", "orders", "sold_at limit 1")]
    assert rain == [23 * 13 % 7]  # of 23:00 on the last day of December


def test_changed_code_computes_all_and_keeps_field_ids_of_kept_columns(bakery: Bakery) -> None:
    bakery.run()
    before = schema_of(bakery.repo.root, orders(bakery))
    bakery.write(
        "steps/orders.sql", ORDERS.replace("sales.shop,", "upper(sales.shop) as shop, 1 as n,")
    )
    result = bakery.run()
    after = schema_of(bakery.repo.root, orders(bakery))
    assert result.steps[0].computed == 3
    assert result.steps[0].why == ("code changed",)
    assert {c.name: c.id for c in before.columns}.items() <= {
        c.name: c.id for c in after.columns
    }.items()
    assert {row[2] for row in bakery.rows("try", "orders")} == {"A", "B", "C"}


def test_a_column_of_another_type_makes_a_new_table_in_its_place(bakery: Bakery) -> None:
    bakery.run()
    before = orders(bakery)
    bakery.write(
        "steps/orders.sql", ORDERS.replace("sales.amount,", "sales.amount::varchar as amount,")
    )
    bakery.run()
    assert orders(bakery).uuid != before.uuid


def test_a_column_that_is_null_without_a_type_keeps_that_of_its_table(bakery: Bakery) -> None:
    untyped = ORDERS.replace("sales.amount,", "null as amount,")
    bakery.write("steps/orders.sql", untyped)
    with pytest.raises(InvalidError, match='"amount" is null in all rows') as caught:
        bakery.run()
    assert caught.value.kind == "unsupported-type"
    bakery.write("steps/orders.sql", ORDERS)
    bakery.run()
    before = orders(bakery)

    bakery.write("steps/orders.sql", untyped)
    run = bakery.run().run

    after = orders(bakery)
    assert schema_of(bakery.repo.root, after) == schema_of(bakery.repo.root, before)
    assert after.uuid == before.uuid
    again = reproduce_run(bakery.repo, run.id, bakery.folder, lambda text: None)
    assert again.sameness == Identical()


def orders(bakery: Bakery) -> TableContent:
    return TableContent.from_content(
        bakery.repo.content(bakery.repo.resolve("try"), "table/orders")
    )


def test_a_reason_or_a_comment_changes_nothing_that_is_computed(bakery: Bakery) -> None:
    bakery.run()
    bakery.edit("pipelines/bread.yaml", "why: One row per sale", "why: Each sale is one row")
    result = bakery.run()
    assert result.steps[0].computed == 0
    assert result.changed == ("pipeline/bread",)


def test_what_another_runtime_computed_is_reused_only_on_request(bakery: Bakery) -> None:
    bakery.run()
    with bakery.repo.store.transaction() as tx:
        tx.execute(
            "update run_pieces set runtime_digest = 'other', piece_key = 'other' || position"
        )
    accepted = bakery.run("accepting", accept_runtime=True).steps[0]
    assert accepted.computed == 0
    assert accepted.why == ("what another runtime computed was accepted",)
    assert bakery.run("other").steps[0].why == ("runtime changed",)


def test_sql_that_fails_on_a_row_leaves_nothing(bakery: Bakery) -> None:
    bakery.write(
        "steps/orders.sql", ORDERS.replace("sales.shop,", "(sales.shop || 'x')::int as n,")
    )
    error = fails(bakery, InvalidError, "sql-failed")
    assert str(error).startswith('steps/orders.sql: step "orders" fails.')
    assert "Error:" not in str(error)


def test_sql_that_the_engine_refuses_is_told_with_its_file_and_place(bakery: Bakery) -> None:
    bakery.write("steps/orders.sql", ORDERS.replace("sales.shop,", "sum_of(sales.shop) as n,"))
    error = fails(bakery, InvalidError, "sql-failed")
    assert 'steps/orders.sql: step "orders" fails. SQL calls "sum_of"' in str(error)
    assert last_run_state(bakery) is RunState.FAILED


def test_sql_is_judged_before_anything_runs(bakery: Bakery) -> None:
    bakery.write("steps/orders.sql", "select id, now() as at from sales")
    fails(bakery, InvalidError, "sql-reads-clock")
    assert run_states(bakery) == []


def test_a_step_may_not_write_over_a_table_that_arrivals_fill(bakery: Bakery) -> None:
    bakery.edit("pipelines/bread.yaml", "writes: orders", "writes: stock")
    bakery.put("stock", "select 1 as id")
    bakery.write(
        "contracts/stock.yaml",
        "apiVersion: v3.1.0\nkind: DataContract\nid: stock\nversion: 1.0.0\nstatus: active\n"
        "schema:\n  - name: stock\n    customProperties:\n"
        "      - {property: mergePolicy, value: append}\n"
        "    properties:\n      - {name: id, logicalType: integer}\n",
    )
    fails(bakery, InvalidError, "not-derived")


CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: {table}
version: {version}
status: active
schema:
  - name: {table}
    customProperties:
      - {{property: mergePolicy, value: derived}}
    properties:
      - {{name: id, logicalType: integer}}
      - {{name: sold_at, logicalType: timestamp}}
"""


def test_a_stale_checkout_puts_nothing_back_that_the_run_does_not_make(bakery: Bakery) -> None:
    bakery.write("steps/orders.sql", "select id, sold_at from sales")
    bakery.edit("pipelines/bread.yaml", ", weather: {time: seen_at, lookback: 2 hours}", "")
    bakery.write("contracts/orders.yaml", CONTRACT.format(table="orders", version="1.0.0"))
    bakery.write("contracts/sales.yaml", CONTRACT.format(table="sales", version="2.0.0"))
    bakery.write("pipelines/other.yaml", SALES_ONLY.replace("bread", "other"))
    bakery.edit("instep.yaml", "ben", "ben, eve")
    bakery.adopt()
    bakery.edit("instep.yaml", "ben, eve", "ben")
    bakery.edit("contracts/sales.yaml", "2.0.0", "1.0.0")
    bakery.edit("pipelines/other.yaml", "every: 1 month", "every: 1 day")
    bakery.write("contracts/stock.yaml", "a draft that is not finished")
    bakery.edit("contracts/orders.yaml", "1.0.0", "1.1.0")
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-03-01")

    result = bakery.run()

    assert result.changed == ("contract/orders", "pipeline/bread", "table/orders")
    assert result.captured == ("contract/orders", "pipeline/bread")
    assert [(one.key, one.state.value) for one in result.left] == [
        ("config/instep", "changed"),
        ("contract/sales", "changed"),
        ("contract/stock", "new"),
        ("pipeline/other", "changed"),
    ]
    main, branch = bakery.repo.resolve("main"), bakery.repo.resolve("try")
    for one in result.left:
        assert bakery.repo.find(branch, one.key) == bakery.repo.find(main, one.key)


@pytest.mark.parametrize(
    ("kind", "is_protected"),
    [(kind, False) for kind in RefKind if kind is not RefKind.BRANCH] + [(RefKind.BRANCH, True)],
)
def test_a_ref_that_took_the_name_meanwhile_is_not_moved(
    bakery: Bakery, kind: RefKind, is_protected: bool
) -> None:
    main = bakery.repo.resolve("main")

    def meanwhile(text: str) -> None:
        with bakery.repo.store.transaction() as tx:
            if find_ref(tx, "try") is None:
                at = bakery.repo.clock()
                create_ref(tx, "try", kind, main, owner="eve", at=at, is_protected=is_protected)

    with pytest.raises(RefusedError) as refused:
        bakery.run(progress=meanwhile)
    assert refused.value.kind == "protected-branch"
    assert head(bakery, "try") == main


def test_no_run_makes_a_branch_where_a_release_will_make_an_environment(bakery: Bakery) -> None:
    bakery.write("instep.yaml", "lake: lake\npeople: [ana]\nenvironments: {prod: {}}\n")

    def declare(text: str) -> None:
        if bakery.repo.find(bakery.repo.resolve("main"), "config/instep") is None:
            bakery.adopt()

    for progress in (declare, lambda text: None):  # declared while it runs, and before
        with pytest.raises(InvalidError) as refused:
            bakery.run("prod", progress=progress)
        assert refused.value.kind == "reserved-ref-name"
    with pytest.raises(InvalidError) as ours:
        bakery.run("_instep")
    assert ours.value.kind == "bad-ref-name"
    assert head(bakery, "prod") is None


def test_main_is_refused_and_a_bad_name_is_refused_before_any_work(bakery: Bakery) -> None:
    with pytest.raises(RefusedError) as refused:
        bakery.run("main")
    assert refused.value.kind == "protected-branch"
    with pytest.raises(InvalidError) as invalid:
        bakery.run("no spaces")
    assert invalid.value.kind == "bad-ref-name"


def test_a_run_above_its_budget_is_refused_before_it_starts(bakery: Bakery) -> None:
    request = RunRequest(
        "bread", bakery.folder, "try", "ana", budget=RunBudget(timedelta(milliseconds=1))
    )
    with pytest.raises(RefusedError) as refused:
        run_pipeline(bakery.repo, request, lambda text: None)
    assert refused.value.kind == "over-budget"
    assert head(bakery, "try") is None


def test_of_two_runs_on_one_branch_the_second_to_publish_is_told_the_keys(bakery: Bakery) -> None:
    bakery.run()
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-03-01")
    second: list[str] = []

    def meanwhile(text: str) -> None:
        if text.startswith("orders") and not second:
            second.append("started")
            thread = threading.Thread(target=lambda: bakery.run())
            thread.start()
            thread.join()

    bakery.write("steps/orders.sql", ORDERS.replace("50", "60"))
    with pytest.raises(ConflictError) as conflict:
        bakery.run(progress=meanwhile)
    assert conflict.value.kind == "keys-moved"
    assert "table/orders" in str(conflict.value)
    assert last_run_state(bakery) in (RunState.FAILED, RunState.SUCCEEDED)


def test_a_run_that_was_given_up_for_lost_may_not_publish(bakery: Bakery) -> None:
    def lose(text: str) -> None:
        with bakery.repo.store.transaction() as tx:
            far = bakery.repo.clock() + timedelta(days=1)
            fail_lost_runs(tx, far)

    with pytest.raises(ConflictError) as lost:
        bakery.run(progress=lose)
    assert lost.value.kind == "lease-lost"
    assert head(bakery, "try") is None


def test_a_lost_run_is_recorded_as_failed_by_the_next(bakery: Bakery) -> None:
    result = bakery.run()
    with bakery.repo.store.transaction() as tx:
        tx.execute("update runs set state = 'running', lease_until = 0, ended_at = null")
    bakery.run("other")
    with bakery.repo.store.reading() as tx:
        lost = load_run(tx, result.run.id)
        assert not extend_lease(tx, result.run.id, bakery.repo.clock())
    assert lost.state is RunState.FAILED
    assert lost.error is not None and lost.error["kind"] == "process-lost"


@pytest.fixture
def training(bakery: Bakery) -> Bakery:
    return make_training(bakery)


def make_training(bakery: Bakery) -> Bakery:
    from pipeline_builders import LATE, SALES_ONLY, TRAINING

    bakery.write("pipelines/bread.yaml", SALES_ONLY + TRAINING)
    bakery.write("steps/late.py", LATE)
    return bakery


def test_a_run_trains_and_publishes_a_model_with_its_table(training: Bakery) -> None:
    result = training.run()
    content = training.repo.content(training.repo.resolve("try"), "model/late")
    assert content["type"] == "instep.model.v1"
    assert content["version"] == "1"
    assert content["run"] == result.run.id
    assert "model/late" in result.run.metrics
    assert training.run().steps[1].computed == 0
    training.edit("pipelines/bread.yaml", "seed: 3", "seed: 4")
    again = training.run()
    assert [step.computed for step in again.steps] == [0, 1]
    assert again.steps[1].why == ("configuration changed",)
    assert again.steps[1].content["version"] == "2"


@pytest.mark.parametrize(
    ("code", "family", "kind", "says"),
    [
        ("def fit(train, params, seed):\n    raise ValueError('no luck')\n",
         InvalidError, "step-raised", "steps/late.py:2 in fit"),
        ("def fit(train, params, seed):\n    import importlib\n"
         "    return importlib.import_module('steps.hidden')\n",
         InvalidError, "uncaptured-import", "steps/hidden.py"),
        ("from pathlib import Path\n\nPLACE = {folder!r}\n\n\n"
         "def fit(train, params, seed):\n    return (Path(PLACE) / 'secret.txt').read_text()\n",
         InvalidError, "undeclared-file", "secret.txt"),
        ("import socket\n\n\ndef fit(train, params, seed):\n"
         "    return socket.create_connection(('127.0.0.1', 9))\n",
         InvalidError, "network-in-step", "127.0.0.1"),
        ("from pathlib import Path\n\n\n"
         "def fit(train, params, seed):\n    return Path('/etc/hostname').read_text()\n",
         InvalidError, "undeclared-file", '"/etc/hostname", which is outside of the run'),
        ("import os\n\n\n"
         "def fit(train, params, seed):\n    return os.open(b'/etc/hostname', os.O_RDONLY)\n",
         InvalidError, "undeclared-file", "/etc/hostname"),
        ("import sys\n\n\ndef fit(train, params, seed):\n    sys.exit('no luck')\n",
         InvalidError, "step-exited", "sys.exit('no luck')\n  steps/late.py:5 in fit"),
        ("raise SystemExit\n\n\ndef fit(train, params, seed):\n    pass\n",
         InvalidError, "step-exited", "steps/late.py:1"),
        ("import os\n\n\ndef fit(train, params, seed):\n    os._exit(3)\n",
         UnavailableError, "worker-died", "exit code 3"),
        ("fit = 3\n",
         InvalidError, "no-such-function", '"fit"'),
    ],
    ids=["raises", "imports", "opens", "connects", "opens-outside", "opens-by-bytes", "exits",
         "exits-at-import", "dies", "lacks"],
)  # fmt: skip
def test_a_training_step_that_goes_wrong_leaves_nothing_and_says_where(
    training: Bakery, code: str, family: type[InstepError], kind: str, says: str
) -> None:
    training.write("secret.txt", "42")
    training.write("steps/hidden.py", "")
    training.write("steps/late.py", code.replace("{folder!r}", repr(str(training.folder))))
    error = fails(training, family, kind)
    assert says in str(error)
    assert last_run_state(training) is RunState.FAILED


def test_what_a_step_prints_is_shown_while_it_runs_and_kept_with_the_run(
    training: Bakery,
) -> None:
    training.edit("steps/late.py", "    tree =", "    print('rows', len(train.target))\n    tree =")
    shown: list[tuple[str, str]] = []
    request = RunRequest("bread", training.folder, "try", "ana")
    result = run_pipeline(
        training.repo, request, lambda text: None, lambda step, text: shown.append((step, text))
    )
    with training.repo.store.reading() as tx:
        orders, late = load_run(tx, result.run.id).steps
    lines = str(late["printed"]).splitlines()
    assert lines and all(line.startswith("rows ") for line in lines)
    assert "".join(text for step, text in shown if step == "late") == late["printed"]
    assert orders["printed"] == ""


def test_what_a_step_printed_before_it_failed_is_shown(training: Bakery) -> None:
    training.write(
        "steps/late.py",
        "def fit(train, params, seed):\n    print('almost', end='')\n    raise ValueError('no')\n",
    )
    shown: list[str] = []
    request = RunRequest("bread", training.folder, "try", "ana")
    with pytest.raises(InvalidError):
        run_pipeline(
            training.repo, request, lambda text: None, lambda step, text: shown.append(text)
        )
    assert "".join(shown) == "almost"


def test_a_step_has_time_zones_and_temporary_files_of_its_own(training: Bakery) -> None:
    training.write(
        "steps/late.py",
        "import tempfile\nfrom pathlib import Path\nfrom zoneinfo import ZoneInfo\n\n"
        "from sklearn.tree import DecisionTreeClassifier\n\n\n"
        "def fit(train, params, seed):\n"
        "    ZoneInfo('Europe/Berlin')\n"
        "    with tempfile.TemporaryDirectory() as folder:\n"
        "        (Path(folder) / 'depth.txt').write_text('1')\n"
        "        depth = int((Path(folder) / 'depth.txt').read_text())\n"
        "    assert not list(Path.home().iterdir())\n"
        "    tree = DecisionTreeClassifier(max_depth=depth, random_state=seed)\n"
        "    return tree.fit(train.features, train.target)\n",
    )
    assert "model/late" in training.run().changed


def test_declared_data_is_read_by_its_relative_path(training: Bakery) -> None:
    training.write("depth.txt", "1")
    training.write(
        "steps/late.py",
        "from pathlib import Path\n\nfrom sklearn.tree import DecisionTreeClassifier\n\n\n"
        "def fit(train, params, seed):\n"
        "    depth = int(Path('depth.txt').read_text())\n"
        "    tree = DecisionTreeClassifier(max_depth=depth, random_state=seed)\n"
        "    return tree.fit(train.features, train.target)\n",
    )
    training.edit("pipelines/bread.yaml", "slices:", "data: [depth.txt]\nslices:")
    assert "model/late" in training.run().changed


ORDERS_CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: orders
version: 1.0.0
status: active
schema:
  - name: orders
    customProperties:
      - {property: mergePolicy, value: derived}
      - {property: sortOrder, value: [amount desc]}
    properties:
      - {name: id, logicalType: integer}
      - name: sold_at
        logicalType: timestamp
        partitioned: true
        customProperties: [{property: partitionTransform, value: month}]
      - {name: shop, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: rain, logicalType: number}
      - {name: known_at, logicalType: timestamp}
      - {name: late, logicalType: boolean}
"""


def orders_of(bakery: Bakery) -> TableContent:
    content = bakery.repo.content(bakery.repo.resolve("try"), "table/orders")
    return TableContent.from_content(content)


def test_a_run_lays_out_its_table_as_the_contract_says(bakery: Bakery) -> None:
    bakery.write("contracts/orders.yaml", ORDERS_CONTRACT)
    bakery.edit("pipelines/bread.yaml", "    every: 1 month ", "    #")
    bakery.run()
    root, table = bakery.repo.root, orders_of(bakery)
    assert sorted(one.partition for one in data_files(root, table)) == [
        ("516",), ("517",), ("518",),
    ]  # fmt: skip
    window = Window(parse_instant("2013-02-01T00:00:00Z"), parse_instant("2013-03-01T00:00:00Z"))
    pruned = data_files(root, table, Slice("sold_at", window))
    assert [one.partition for one in pruned] == [("517",)]
    assert len(bakery.rows("try", "orders")) == 24 * 90


def test_a_run_lays_out_what_it_computes_anew_when_the_contract_changes(bakery: Bakery) -> None:
    plain = ORDERS_CONTRACT.replace("        partitioned: true\n", "").replace(
        "        customProperties: [{property: partitionTransform, value: month}]\n", ""
    )
    bakery.write("contracts/orders.yaml", plain)
    bakery.run()
    assert {one.partition for one in data_files(bakery.repo.root, orders_of(bakery))} == {()}
    bakery.write("contracts/orders.yaml", ORDERS_CONTRACT)
    bakery.edit("pipelines/bread.yaml", "to: 2013-04-01", "to: 2013-05-01")
    bakery.run()
    found = {one.partition for one in data_files(bakery.repo.root, orders_of(bakery))}
    assert ("519",) in found
    assert len(bakery.rows("try", "orders")) == 24 * 120


def test_a_run_of_a_partitioned_table_is_reproduced(bakery: Bakery) -> None:
    bakery.write("contracts/orders.yaml", ORDERS_CONTRACT)
    run = bakery.run().run
    again = reproduce_run(bakery.repo, run.id, bakery.folder, lambda text: None)
    assert again.sameness == Identical()


def test_a_run_reads_no_file_with_other_bytes_than_were_written(bakery: Bakery) -> None:
    content = bakery.repo.content(bakery.repo.resolve("main"), "table/sales")
    file = data_files(bakery.repo.root, TableContent.from_content(content))[0]
    path = Path(file.path)
    right = path.read_bytes()
    path.write_bytes(right[:100] + bytes([right[100] ^ 1]) + right[101:])

    error = fails(bakery, InternalError, "damaged-object")

    assert error.facts["path"] == path.relative_to(bakery.repo.root).as_posix()
    assert last_run_state(bakery) is RunState.FAILED
    path.write_bytes(right)
    assert bakery.run().changed == ("pipeline/bread", "table/orders")
