"""A step's SQL: what it reads, what each column is made of, and what may not reach it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from instep.errors import InvalidError
from instep.pipelines.lineage import Lineage, analyse, check_condition, load_lineage

TABLES = {
    "sales": ("id", "sold_at", "shop", "amount"),
    "weather": ("seen_at", "rain"),
    "shops": ("shop", "town"),
}
NOT_OF_THE_WORLD = {"error"}
"""Functions that DuckDB calls volatile, but whose outcome follows from their arguments."""


def columns_of(table: str) -> Sequence[str] | None:
    return TABLES.get(table)


def read(sql: str) -> Lineage:
    return analyse(sql, "steps/x.sql", columns_of, lambda: tuple(TABLES))


def fault(sql: str) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        read(sql)
    return caught.value


def test_columns_are_followed_through_joins_and_common_tables() -> None:
    found = read(
        """
        with late as (select s.*, s.amount * 2 as twice from sales s)
        select late.id, twice + coalesce(w.rain, 0) as score, town
        from late
        left join weather w on w.seen_at = late.sold_at - interval 1 hour
        join shops using (shop)
        where exists (select 1 from weather v where v.rain > late.amount)
        """
    )
    assert set(found.tables) == {"sales", "weather", "shops"}
    assert found.columns == {
        "id": ("sales.id",),
        "score": ("sales.amount", "weather.rain"),
        "town": ("shops.town",),
    }
    assert {"sales.shop", "shops.shop", "weather.seen_at"} <= set(found.reads)


@pytest.mark.parametrize(
    "sql",
    [
        "select hash(sales) as h from sales",
        "select sales from sales",
        "select count(s) as n from (select * from sales) s",
        "select row(sales.*) as r from sales",
        "select b from sales s(a, b, c, d)",
        "select id, sold_at, shop, amount from sales natural join shops",
    ],
)
def test_where_a_row_is_taken_whole_every_column_of_it_matters(sql: str) -> None:
    assert {f"sales.{name}" for name in TABLES["sales"]} <= set(read(sql).reads)


def test_a_star_gives_the_columns_of_its_table() -> None:
    assert tuple(read("select * from sales").columns) == TABLES["sales"]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select * from 'sales.csv'", "sql-reads-file"),
        ("select * from read_csv('sales.csv')", "sql-reads-file"),
        ("select * from read_parquet(['a.parquet'])", "sql-reads-file"),
        ("select * from glob('*')", "sql-reads-file"),
        ("select * from parquet_metadata('a')", "sql-reads-file"),
        ("select * from duckdb_settings()", "sql-reads-file"),
        ("select * from information_schema.tables", "sql-reads-file"),
        ("select * from query('select 1')", "sql-reads-file"),
        ("select read_text('x') as x from sales", "sql-reads-file"),
        ("select id, now() as at from sales", "sql-reads-clock"),
        ("select id from sales where sold_at < current_date", "sql-reads-clock"),
        ("select age(sold_at) as age from sales", "sql-reads-clock"),
        ("select id from sales order by random()", "sql-random"),
        ("select gen_random_uuid() as key from sales", "sql-random"),
        ("select * from sales using sample 10%", "sql-random"),
        ("select current_setting('threads') as n from sales", "sql-reads-session"),
        ("select id from sales where id = $1", "sql-reads-session"),
        ("copy sales to 'out.csv'", "not-a-select"),
        ("attach 'other.db'", "not-a-select"),
        ("pragma database_list", "not-a-select"),
        ("set threads = 1", "not-a-select"),
        ("insert into sales select * from sales", "not-a-select"),
        ("select 1 as a; select 2 as b", "not-a-select"),
        ("", "not-a-select"),
        ("select (id from sales", "bad-sql"),
        ("select columns('s.*') from sales", "bad-sql"),
        ("select shop from sales join shops on true", "bad-sql"),
        ("select id from slaes", "no-such-table"),
        ("select amunt from sales", "no-such-column"),
        ("select s.amunt from sales s", "no-such-column"),
    ],
)
def test_what_is_not_one_select_over_known_tables_is_refused(sql: str, kind: str) -> None:
    assert fault(sql).kind == kind


def test_a_seeded_sample_and_rows_from_arguments_are_allowed() -> None:
    assert read("select id from sales tablesample reservoir(10) repeatable (7)").tables
    assert read("select id, n from sales, range(3) r(n)").tables == ("sales",)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("select id\nfrom slaes", 'steps/x.sql:2: table "slaes" does not exist'),
        ("select id\nfrom slaes", 'Did you mean "sales"?'),
        ("select id,\n  amunt\nfrom sales", 'steps/x.sql:2: column "amunt" does not exist'),
        ("select id,\n  amunt\nfrom sales", 'Did you mean "amount"?'),
        ("select id,\n  now() as at\nfrom sales", "steps/x.sql:2: the SQL uses now()"),
        (
            "select 'random' as a,\n  Random() as b\nfrom sales",
            "x.sql:2: the SQL uses Random()",
        ),
        ("select id,\n  today() as at\nfrom sales", "x.sql:2: the SQL uses today()"),
        (
            "select id\nfrom sales\nwhere sold_at < current_date",
            "x.sql:3: the SQL uses current_date:",
        ),
        (
            "select id,\n gen_random_uuid() as k from sales",
            "x.sql:2: the SQL uses gen_random_uuid()",
        ),
        ("select *\nfrom sales\nusing sample 10%", "x.sql:3: the SQL uses a sample"),
        ("select id\nfrom sales\nwhere id = $1", "x.sql:3: the SQL uses parameter $1"),
        ("select *\nfrom\n read_csv('a.csv')", "x.sql:3: the SQL uses read_csv()"),
    ],
)
def test_a_fault_names_file_line_and_the_nearest_name(sql: str, says: str) -> None:
    assert says in str(fault(sql))


def volatile_functions() -> list[tuple[str, int]]:
    with duckdb.connect() as connection:
        rows = connection.execute(
            "select distinct function_name, len(parameters) from duckdb_functions() "
            "where stability <> 'CONSISTENT' and function_type = 'scalar'"
        ).fetchall()
    return [(name, count) for name, count in rows if name not in NOT_OF_THE_WORLD]


@pytest.mark.parametrize(("name", "count"), volatile_functions())
def test_every_function_that_duckdb_calls_volatile_is_refused(name: str, count: int) -> None:
    if not set(name) <= set(string.ascii_lowercase + string.digits + "_"):
        return
    arguments = ", ".join(["'x'"] * count)
    call = name if name == "current_date" else f"{name}({arguments})"
    assert fault(f"select {call} as x from sales").kind in (
        "sql-reads-clock",
        "sql-random",
        "sql-reads-session",
        "sql-reads-file",
    )


def test_a_kept_answer_holds_until_a_column_of_an_input_changes(tmp_path: Path) -> None:
    tables = {"sales": ("id", "amount")}

    def load() -> Lineage:
        return load_lineage(tmp_path, "select * from sales", "x.sql", tables.get, lambda: ())

    assert tuple(load().columns) == ("id", "amount")
    assert len(list(tmp_path.iterdir())) == 1
    assert tuple(load().columns) == ("id", "amount")
    tables["sales"] = ("id", "total")
    assert tuple(load().columns) == ("id", "total")


def test_a_damaged_kept_answer_is_looked_up_again(tmp_path: Path) -> None:
    sql = "select id from sales"
    first = load_lineage(tmp_path, sql, "x.sql", columns_of, lambda: ())
    next(tmp_path.iterdir()).write_text("{")
    assert load_lineage(tmp_path, sql, "x.sql", columns_of, lambda: ()) == first


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        ("random() < 0.1", "sql-random"),
        ("at < now() - interval 1 year", "sql-reads-clock"),
        ("id in (select id from read_csv('a.csv'))", "sql-reads-file"),
        ("true) or (random() < 0.1", "sql-random"),
        ("id = ", "bad-sql"),
    ],
)
def test_a_condition_depends_on_the_rows_alone(condition: str, kind: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_condition(condition, "--where")
    assert caught.value.kind == kind
    assert caught.value.message.startswith("--where:")
    check_condition("id = 7 and at < '2013-01-01' -- now", "--where")


@pytest.mark.parametrize(
    ("sql", "rows", "copies"),
    [
        ("select sold_at as at, date_trunc('day', sold_at) as day from sales", ["sales"],
         {"at": "sales.sold_at"}),
        ("with s as (select *, sold_at as t from sales) select s.t, w.seen_at from (from s) s "
         "left join weather w on true", ["sales ?weather"],
         {"t": "sales.sold_at", "seen_at": "weather.seen_at"}),
        ("select sold_at from sales union all select sold_at from sales", ["sales"],
         {"sold_at": "sales.sold_at"}),
        ("select sold_at as at from sales union all select seen_at from weather",
         ["sales", "weather"], {}),
        ("select sold_at as at from sales union all select sold_at + interval 1 hour from sales",
         ["sales"], {}),
        ("select max(sold_at) as at, lag(sold_at) over () as b from sales group by sold_at",
         ["sales"], {}),
        ("select range as n from range(3)", [""], {}),
        ("select 1 as n", [""], {}),
        ("select max(id) as n from sales", [""], {}),
        ("select w.rain from (weather w join sales s on true) full join shops on true",
         ["sales weather ?shops", "shops ?sales ?weather"], {"rain": "weather.rain"}),
        ("select a.id from sales a join sales b on true", ["sales ?sales"], {"id": "sales.id"}),
        ("with j as (select s.id, w.rain as r from sales s join weather w on true) "
         "select distinct r from j", ["weather ?sales"], {"r": "weather.rain"}),
    ],
)  # fmt: skip
def test_what_is_copied_as_it_is_is_told_from_what_is_computed_and_whose_the_rows_are(
    sql: str, rows: list[str], copies: dict[str, str]
) -> None:
    found = read(sql)

    said = [
        " ".join([*sorted(row.always), *(f"?{table}" for table in sorted(row.maybe))])
        for row in found.rows
    ]
    assert said == rows
    assert found.copies == copies
