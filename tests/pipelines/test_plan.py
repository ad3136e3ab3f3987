"""Which pieces are reused: exactly those to which nothing else than before would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_builders import SALES_ONLY

from instep.clock import Window, parse_instant
from instep.engines.schema import Column
from instep.errors import InvalidError
from instep.pipelines.config import PipelineConfig, SqlStep, parse_pipeline
from instep.pipelines.lineage import Lineage, analyse
from instep.pipelines.plan import (
    Basis,
    Cause,
    Cut,
    FileFact,
    Past,
    PastPiece,
    StepPlan,
    TableFacts,
    plan_step,
    row_time,
)

CONFIG = parse_pipeline(SALES_ONLY, "pipelines/bread.yaml")
BASIS = Basis("code", "configuration", None, "runtime")
LINEAGE = Lineage(("sales", "weather"), {"id": ("sales.id",)}, ("sales.id", "sales.shop"))
START = parse_instant("2013-01-01")

# A file of the naive lake: its table, the hours that it spans, and its digest.
Files = list[tuple[str, int, int, str]]


def plan(
    files: Files,
    past: Past | None,
    config: PipelineConfig = CONFIG,
    basis: Basis = BASIS,
    accept_runtime: bool = False,
    columns: Mapping[str, Sequence[Column]] = MappingProxyType({}),
) -> StepPlan:
    def facts_of(table: str, cut: Cut | None) -> TableFacts:
        found = tuple(
            FileFact((digest,), 1, 1)
            for name, first, last, digest in files
            if name == table and (cut is None or overlaps(cut.window, first, last))
        )
        return TableFacts(tuple(columns.get(table, ())), found)

    step = config.steps[0]
    assert isinstance(step, SqlStep)
    return plan_step(
        step, config, LINEAGE, basis, {}, facts_of, past, (), {}, accept_runtime=accept_runtime
    )


def overlaps(window: Window, first: int, last: int) -> bool:
    start, end = START + timedelta(hours=first), START + timedelta(hours=last)
    return start < window.end and end >= window.start


def computed(found: StepPlan) -> Past:
    """The past that a run of this plan leaves behind."""
    pieces = tuple(
        PastPiece(
            piece.window,
            piece.key or "",
            tuple(one.to_json() for one in piece.inputs),
            found.basis,
            (),
        )
        for piece in found.pieces
    )
    return Past("run_1", {"type": "test"}, pieces)


hours = st.integers(-24 * 10, 24 * 100)
files_strategy = st.lists(
    st.tuples(st.sampled_from(["sales", "weather"]), hours, hours, st.integers(0, 99).map(str)),
    max_size=8,
).map(lambda files: [(t, min(a, b), max(a, b), f"{t}{n}") for t, a, b, n in files])


@given(files_strategy, files_strategy)
def test_a_period_is_computed_exactly_when_a_file_that_reaches_it_differs(
    before: Files, after: Files
) -> None:
    past = computed(plan(before, None))
    found = plan(after, past)
    for piece, month in zip(found.pieces, (0, 31, 59), strict=True):
        days = {0: 31, 31: 28, 59: 31}[month]
        reach = {}
        for files in (before, after):
            own = sorted(
                digest
                for table, first, last, digest in files
                if overlaps(
                    Window(
                        START + timedelta(days=month, hours=-2 if table == "weather" else 0),
                        START + timedelta(days=month + days),
                    ),
                    first,
                    last,
                )
            )
            reach[id(files)] = own
        assert (piece.reused is not None) == (reach[id(before)] == reach[id(after)])


schemas = st.fixed_dictionaries(
    {
        name: st.tuples(st.integers(1, 3), st.sampled_from(["int", "long"]), st.booleans())
        for name in ("id", "shop", "sold_at", "amount")
    }
)


@given(schemas, schemas, st.permutations(["id", "shop", "sold_at", "amount"]))
def test_a_period_is_reused_only_if_what_it_reads_is_read_by_the_same_fields(
    before: dict[str, tuple[int, str, bool]],
    after: dict[str, tuple[int, str, bool]],
    order: list[str],
) -> None:
    files: Files = [("sales", 0, 10, "a")]
    then = [Column(i, name, t, r) for name, (i, t, r) in before.items()]
    now = [Column(after[name][0], name, *after[name][1:]) for name in order]
    past = computed(plan(files, None, columns={"sales": then}))
    found = plan(files, past, columns={"sales": now})
    matters = ("id", "shop", "sold_at")  # sold_at cuts the slice; amount is read by nothing
    same = [c for c in then if c.name in matters] == [c for c in now if c.name in matters]
    assert all((piece.reused is not None) == same for piece in found.pieces)


def test_each_thing_that_changed_is_named() -> None:
    files: Files = [("sales", 0, 10, "a"), ("weather", 0, 10, "b")]
    past = computed(plan(files, None))
    cases = {
        Cause.CODE: replace(BASIS, code_digest="other"),
        Cause.CONFIGURATION: replace(BASIS, configuration_digest="other"),
        Cause.CONTRACT: replace(BASIS, contract="other"),
        Cause.RUNTIME: replace(BASIS, runtime_digest="other"),
    }
    for cause, basis in cases.items():
        found = plan(files, past, basis=basis)
        assert len(found.computed) == 3
        assert {one.cause for piece in found.pieces for one in piece.reasons} == {cause}
    (january, *rest) = plan([*files, ("sales", 5, 6, "c")], past).pieces
    assert [str(reason) for reason in january.reasons] == ["inputs changed (sales)"]
    assert all(piece.reused for piece in rest)


def test_another_runtime_alone_may_be_accepted() -> None:
    files: Files = [("sales", 0, 10, "a")]
    past = computed(plan(files, None))
    other = replace(BASIS, runtime_digest="other")
    assert plan(files, past, basis=other, accept_runtime=True).is_reused
    both = replace(other, code_digest="other")
    assert not plan(files, past, basis=both, accept_runtime=True).is_reused


def test_a_period_outside_the_slice_is_dropped() -> None:
    files: Files = [("sales", 0, 10, "a")]
    past = computed(plan(files, None))
    shorter = parse_pipeline(SALES_ONLY.replace("to: 2013-04-01", "to: 2013-03-01"), "p.yaml")
    found = plan(files, past, config=shorter)
    assert not found.computed and len(found.dropped) == 1 and not found.is_reused


def test_nothing_that_was_computed_before_is_reused_without_a_past() -> None:
    found = plan([], None)
    assert {str(one) for piece in found.pieces for one in piece.reasons} == {"not computed before"}


OF_SALES = "sales: sold_at, weather: {time: seen_at, lookback: 1 day}"
OWN = "sales: {time: sold_at, lookback: 1 day}"


@pytest.mark.parametrize(
    ("slices", "sql", "column"),
    [
        # The rows are of sales, wherever they stand; the weather before them is only joined.
        (OF_SALES, "select sold_at, seen_at from sales left join weather on true", None),
        (OF_SALES, "select sold_at, seen_at from weather join sales on true", None),
        (OF_SALES, "select sold_at, seen_at from weather left join sales on true", "refused"),
        (OWN, "select sold_at as at, shop from sales", "at"),
        (OWN, "select sold_at, sold_at as earlier from sales", "sold_at"),
        (OWN, "select sold_at as a, sold_at as b from sales", "a"),
        (OWN, "select sold_at as at from shops join sales on true", "at"),
        (OWN, "select sold_at from sales left join shops on true "
         "where exists (select 1 from sales s where s.shop = shops.shop)", "sold_at"),
        # A row of shops has no time where it has no sale.
        (OWN, "select sold_at from shops left join sales on true", "refused"),
        (OWN, "select a.sold_at from sales a left join sales b on a.shop = b.shop", "refused"),
        (OWN, "select shops.shop from shops", None),
        (OWN, "select count(*) filter (shop = 'a') as n from sales", None),
        (f"{OWN}, weather: seen_at", "select sold_at from weather right join sales on true",
         "refused"),
        (f"{OWN}, weather: seen_at", "select sold_at from weather join sales on true", None),
        (f"{OWN}, weather: {{time: seen_at, lookback: 1 day}}",
         "select sold_at, seen_at from sales join weather on true", "refused"),
        ("sales: sold_at, weather: seen_at", "select id from sales full join weather on true",
         None),
    ],
)  # fmt: skip
def test_the_column_that_tells_of_which_period_a_row_is_or_that_one_has_to_be_named(
    slices: str, sql: str, column: str | None
) -> None:
    old = "sales: sold_at, weather: {time: seen_at, lookback: 2 hours}"
    assert old in SALES_ONLY
    config = parse_pipeline(SALES_ONLY.replace(old, slices), "pipelines/bread.yaml")
    step = config.steps[0]
    assert isinstance(step, SqlStep)
    tables = {"sales": ("id", "sold_at", "shop"), "weather": ("seen_at",), "shops": ("shop",)}
    found = analyse(sql, "orders.sql", tables.get)

    for every in (step.every, None):
        now = replace(step, every=every)
        if column == "refused":
            with pytest.raises(InvalidError) as caught:
                row_time(now, config, found)
            assert caught.value.kind == "rows-without-time"
            assert "`time: sold_at`" in str(caught.value)
        else:
            assert row_time(now, config, found) == column
    assert row_time(replace(step, time="day"), config, found) == "day"


def test_groups_without_a_time_are_refused_by_periods_and_written_in_one_go() -> None:
    config = parse_pipeline(SALES_ONLY.replace("sales: sold_at", OWN), "pipelines/bread.yaml")
    step = config.steps[0]
    assert isinstance(step, SqlStep)
    columns = {"sales": ("id", "sold_at", "shop")}
    found = analyse("select shop, count(*) as n from sales group by all", "o.sql", columns.get)
    with pytest.raises(InvalidError, match=r"Select sales\.sold_at as it is") as caught:
        row_time(step, config, found)
    assert caught.value.kind == "rows-without-time"
    assert row_time(replace(step, every=None), config, found) is None
