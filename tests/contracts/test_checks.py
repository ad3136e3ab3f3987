"""Good rows, broken terms and quarantined rows agree with a naive reading, row by row."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal, InvalidOperation, localcontext

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.contracts import checks
from instep.contracts.checks import Batch
from instep.contracts.terms import (
    BatchTerm,
    Bound,
    ColumnTerm,
    Contract,
    Metric,
    Operator,
)

READINGS = Contract(
    table="readings",
    version="1",
    key=("station", "hour"),
    columns=(
        ColumnTerm("station", "string", required=True, values=("A", "B")),
        ColumnTerm("hour", "long", required=True),
        ColumnTerm("wind", "double", minimum=Bound("0"), maximum=Bound("100", exclusive=True)),
        ColumnTerm("code", "string", pattern="^[A-Z]+$", longest=3),
    ),
)
TEXTS = {column.name: "VARCHAR" for column in READINGS.columns}

Row = tuple[str | None, str | None, str | None, str | None]


def session(rows: list[Row]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        "CREATE TABLE staged (station VARCHAR, hour VARCHAR, wind VARCHAR, code VARCHAR, "
        "_line BIGINT)"
    )
    if rows:
        connection.executemany(
            "INSERT INTO staged VALUES (?, ?, ?, ?, ?)",
            [(*row, index + 2) for index, row in enumerate(rows)],
        )
    return connection


def number(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        return None


def naive_terms(rows: list[Row]) -> list[tuple[str, ...]]:
    """The terms that each row breaks, read off one row at a time."""

    def whole(text: str | None) -> int | None:
        value = number(text)
        return int(value) if value is not None and value == value.to_integral_value() else None

    keys: Counter[tuple[str | None, int | None]] = Counter(
        (station, whole(hour))
        for station, hour, _, _ in rows
        if station and whole(hour) is not None
    )
    found = []
    for station, hour, wind, code in rows:
        broken = []
        if station is None:
            broken.append("station.required")
        elif station not in ("A", "B"):
            broken.append("station.values")
        if hour is None:
            broken.append("hour.required")
        elif whole(hour) is None:
            broken.append("hour.type")
        speed = number(wind)
        if wind is not None and speed is None:
            broken.append("wind.type")
        if speed is not None and speed < 0:
            broken.append("wind.minimum")
        if speed is not None and speed >= 100:
            broken.append("wind.maximum")
        if code is not None and len(code) > 3:
            broken.append("code.maxLength")
        if code is not None and not (code.isascii() and code.isalpha() and code.isupper()):
            broken.append("code.pattern")
        if keys[(station, whole(hour))] > 1:
            broken.append("key.unique")
        found.append(tuple(broken))
    return found


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C", None]),
        st.sampled_from(["1", "2", "3", "4.0", "4.5", "x", None]),
        st.sampled_from(["0", "12.5", "99.99", "100", "-1", "fast", None]),
        st.sampled_from(["AB", "ABCD", "a", None]),
    ),
    max_size=12,
)


@given(ROWS)
@settings(max_examples=80)
def test_rows_are_split_as_a_naive_reading_splits_them(rows: list[Row]) -> None:
    connection = session(rows)
    plain = Batch("staged", TEXTS)
    connection.execute(f"CREATE TEMP TABLE twice AS {checks.duplicate_keys(READINGS, plain)}")
    batch = Batch("staged", TEXTS, "twice")
    expected = naive_terms(rows)

    good = connection.execute(checks.good_rows(READINGS, batch)).fetchall()
    assert len(good) == sum(not broken for broken in expected)

    total, bad, *counts = connection.execute(checks.broken_counts(READINGS, batch)).fetchall()[0]
    assert (total, bad) == (len(rows), sum(bool(broken) for broken in expected))
    by_term = Counter(term for broken in expected for term in broken)
    assert dict(zip(checks.term_names(READINGS, batch), counts, strict=True)) == {
        name: by_term[name] for name in checks.term_names(READINGS, batch)
    }

    aside = connection.execute(checks.quarantined_rows(READINGS, batch, "_line")).fetchall()
    assert {line: terms for line, terms, _ in aside} == {
        index + 2: ", ".join(sorted(broken, key=checks.term_names(READINGS, batch).index))
        for index, broken in enumerate(expected)
        if broken
    }
    for line, _, raw in aside:
        assert tuple(json.loads(raw).values()) == rows[line - 2]


def test_keys_already_in_the_table_are_duplicates() -> None:
    connection = session([("A", "1", None, None), ("A", "2", None, None)])
    connection.execute("CREATE TABLE existing AS SELECT 'A' AS station, 2::BIGINT AS hour")
    found = checks.duplicate_keys(READINGS, Batch("staged", TEXTS), "existing")
    assert connection.execute(found).fetchall() == [("A", 2)]


@pytest.mark.parametrize(
    ("type_", "fitting", "unfitting"),
    [
        ("int", ["1", " 7 ", "11.0", "-2147483648"], ["1.5", "15e-1", "2147483648", "x", "0x10"]),
        ("long", ["9223372036854775807"], ["9223372036854775808", "1,000"]),
        ("double", ["1.5", "1e3", "-.5", "1e-400"], ["1,5", "fast", "nan", "-inf", "1e400"]),
        ("float", ["1.5"], ["NaN", "Infinity", "1e39"]),
        ("decimal(9,2)", ["1.25", "1"], ["1.255", "99999999.00"]),
        ("decimal(38,19)", ["0.1234567890123456789"], ["0.12345678901234567891"]),
        ("date", ["2013-01-31"], ["2013-02-30", "2013-01-31 10:00", "31.1.2013"]),
        ("timestamptz", ["2013-01-01T10:00:00Z", "2013-01-01 10:00"], ["noon", "2013-13-01"]),
        (
            "timestamptz",
            ["2013-01-01 10:00:00.123456000Z"],
            ["2013-01-01T10:00:00.1234567Z", "2013-01-01 10:00:00.000000001"],
        ),
        ("time", ["10:00:00.5"], ["10:00:00.1234567"]),
        ("timestamp", ["2013-01-01 10:00:00"], ["2013-01-01 10:00:00+02:00"]),
        ("boolean", ["true", "F", "0"], ["maybe"]),
    ],
)
def test_text_fits_a_type_only_when_nothing_is_lost(
    type_: str, fitting: list[str], unfitting: list[str]
) -> None:
    contract = Contract("t", "1", (ColumnTerm("v", type_),))
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("CREATE TABLE staged (v VARCHAR)")
    connection.executemany("INSERT INTO staged VALUES (?)", [[v] for v in fitting + unfitting])
    batch = Batch("staged", {"v": "VARCHAR"})
    [(total, bad, *_)] = connection.execute(checks.broken_counts(contract, batch)).fetchall()
    good = connection.execute(checks.good_rows(contract, batch)).fetchall()
    assert (total, bad, len(good)) == (
        len(fitting) + len(unfitting),
        len(unfitting),
        len(fitting),
    )


NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole}{fraction}{exponent}",
    st.sampled_from(["", "-", "+"]),
    st.from_regex(r"[0-9]{1,12}", fullmatch=True),
    st.one_of(st.just(""), st.from_regex(r"\.[0-9]{0,3}0{0,15}[0-9]{0,2}", fullmatch=True)),
    st.one_of(st.just(""), st.from_regex(r"[eE][+-]?[0-9]", fullmatch=True)),
)


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.sampled_from([0, 2, 9]))
@settings(max_examples=100)
def test_a_decimal_text_fits_exactly_when_it_has_no_more_places(
    texts: list[str], scale: int
) -> None:
    type_ = f"decimal(38,{scale})" if scale else "long"
    contract = Contract("t", "1", (ColumnTerm("v", type_),))
    connection = duckdb.connect()
    connection.execute("CREATE TABLE staged (v VARCHAR)")
    connection.executemany("INSERT INTO staged VALUES (?)", [[text] for text in texts])
    good = connection.execute(checks.good_rows(contract, Batch("staged", {"v": "VARCHAR"})))
    exact = [Decimal(text) for text in texts]
    with localcontext(prec=60):  # 28 digits, the default, would round what is compared
        whole = [one * 10**scale == (one * 10**scale).to_integral_value() for one in exact]
    plain = [bool(scale) or "e" not in text.lower() for text in texts]
    assert [Decimal(value) for (value,) in good.fetchall()] == [
        one
        for one, is_whole, is_plain in zip(exact, whole, plain, strict=True)
        if is_whole and is_plain and (scale or abs(one) < 2**63)
    ]


@pytest.mark.parametrize(
    ("type_", "fitting", "unfitting"),
    [
        ("long", ["7", "-7", "+7", "007", " 7", "7.0"], ["1e1", "1_000", "0x10", "7.5", "x", ""]),
        ("decimal(9,2)", ["7.50", "75e-1"], ["1_000", "1_0.5", "7.505", "x"]),
        ("double", ["7.5", "1e1"], ["1_000", "x", "nan"]),
    ],
)
def test_a_number_is_read_only_as_it_is_usually_written(
    type_: str, fitting: list[str], unfitting: list[str]
) -> None:
    contract = Contract("t", "1", (ColumnTerm("v", type_),))
    connection = duckdb.connect()
    connection.execute("CREATE TABLE staged (v VARCHAR)")
    texts = [[text] for text in fitting + unfitting]
    connection.executemany("INSERT INTO staged VALUES (?)", texts)
    batch = Batch("staged", {"v": "VARCHAR"})
    [(_, bad, *_)] = connection.execute(checks.broken_counts(contract, batch)).fetchall()
    assert bad == len(unfitting)


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT"])
def test_a_typed_value_that_is_no_number_lies_in_no_range(kind: str) -> None:
    bounds = [
        (ColumnTerm("v", kind.lower(), minimum=Bound("0")), ["inf", "1"]),
        (ColumnTerm("v", kind.lower(), maximum=Bound("9")), ["-inf", "1"]),
        (ColumnTerm("v", kind.lower(), minimum=Bound("0", exclusive=True)), ["inf", "1"]),
        (ColumnTerm("v", kind.lower(), maximum=Bound("9", exclusive=True)), ["-inf", "1"]),
        (ColumnTerm("v", kind.lower()), ["nan", "-nan", "inf", "-inf", "1"]),
    ]
    values = ", ".join(f"('{text}'::{kind})" for text in ("nan", "-nan", "inf", "-inf", "1"))
    for column, kept in bounds:
        connection = duckdb.connect()
        connection.execute(f"CREATE TABLE staged AS SELECT * FROM (VALUES {values}) AS t(v)")
        good = checks.good_rows(Contract("t", "1", (column,)), Batch("staged", {"v": kind}))
        assert len(connection.execute(good).fetchall()) == len(kept), column


@pytest.mark.parametrize(
    ("source", "type_", "fitting", "unfitting"),
    [
        ("DOUBLE", "long", ["1", "2.0"], ["2.5", "1e300"]),
        ("BIGINT", "int", ["5"], ["3000000000"]),
        ("BIGINT", "double", ["5"], ["9007199254740993"]),
        ("TIMESTAMP", "date", ["'2013-01-01'"], ["'2013-01-01 01:00'"]),
        ("DOUBLE", "string", ["1.5"], []),
    ],
)
def test_typed_values_fit_a_type_only_when_nothing_is_lost(
    source: str, type_: str, fitting: list[str], unfitting: list[str]
) -> None:
    contract = Contract("t", "1", (ColumnTerm("v", type_),))
    connection = duckdb.connect()
    values = ", ".join(f"(CAST({text} AS {source}))" for text in fitting + unfitting)
    connection.execute(f"CREATE TABLE staged AS SELECT * FROM (VALUES {values}) AS t(v)")
    batch = Batch("staged", {"v": source})
    [(_, bad, *_)] = connection.execute(checks.broken_counts(contract, batch)).fetchall()
    assert bad == len(unfitting)


def test_batch_terms_count_the_batch_as_it_came() -> None:
    contract = Contract(
        "readings",
        "1",
        READINGS.columns,
        batch=(
            BatchTerm(Metric.ROWS, (), Operator.AT_LEAST, (Decimal(4),)),
            BatchTerm(Metric.NULLS, ("wind",), Operator.AT_MOST, (Decimal(25),), percent=True),
            BatchTerm(Metric.DUPLICATES, ("station", "hour"), Operator.EQUAL, (Decimal(0),)),
            BatchTerm(
                Metric.INVALID, ("station",), Operator.AT_MOST, (Decimal(1),), values=("A", "B")
            ),
        ),
    )
    connection = session(
        [("A", "1", None, None), ("A", "1", None, None), ("C", "2", "1", None), ("C", "3", "1", "")]
    )
    query = checks.batch_counts(contract, Batch("staged", TEXTS))
    assert query is not None
    [(rows, *counts)] = connection.execute(query).fetchall()
    assert counts == [4, 2, 1, 2]
    found = checks.batch_findings(contract, rows, counts)
    assert [finding.message for finding in found] == [
        "nullValues of wind is at most 25 percent: found 2 in 4 rows.",
        "duplicateValues of station, hour is 0: found 1 in 4 rows.",
        "invalidValues of station is at most 1: found 2 in 4 rows.",
    ]


@pytest.mark.parametrize("type_", ["int", "long", "decimal(38,0)", "double"])
def test_a_number_in_a_key_has_no_superfluous_zeros(type_: str) -> None:
    columns = (ColumnTerm("v", type_, required=True), ColumnTerm("w", type_))
    contract = Contract("t", "1", columns, key=("v",))
    fitting, unfitting = ["0", "7", "-7", "70", "+8"], ["007", "00", "-07", "+09", " 05", "007"]
    connection = duckdb.connect()
    connection.execute("CREATE TABLE staged (v VARCHAR, w VARCHAR)")
    texts = [[text, text] for text in fitting + unfitting]
    connection.executemany("INSERT INTO staged VALUES (?, ?)", texts)
    batch = Batch("staged", {"v": "VARCHAR", "w": "VARCHAR"})
    assert connection.execute(checks.duplicate_keys(contract, batch)).fetchall() == []
    [(_, bad, *_)] = connection.execute(checks.broken_counts(contract, batch)).fetchall()
    good = connection.execute(checks.good_rows(contract, batch)).fetchall()
    assert (bad, sorted(int(v) for v, _ in good)) == (6, [-7, 0, 7, 8, 70])
