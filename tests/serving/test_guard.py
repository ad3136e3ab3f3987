"""What a model may be asked: each refusal names feature, value and what was expected."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from serving_builders import DEST, HOUR, WIND, question

from instep.canonical import Json
from instep.clock import Window
from instep.contracts.terms import Bound, ColumnTerm
from instep.serving.guard import Admitted, Guard, Rule, Term, broken_promises, check
from instep.serving.records import Refused

DEST_TERM = Term("flights", ColumnTerm("dest", "string", pattern="^[A-Z]{3}$"))
GUARD = Guard(rules=(Rule(HOUR), Rule(DEST, (DEST_TERM,)), Rule(WIND)), key=("carrier", "flight"))


def refused(guard: Guard, **features: Json) -> Refused:
    verdict = check(guard, question(**features))
    assert isinstance(verdict, Refused)
    return verdict


def admitted(guard: Guard, **features: Json) -> Admitted:
    verdict = check(guard, question(**features))
    assert isinstance(verdict, Admitted)
    return verdict


def test_a_fitting_question_is_admitted_in_the_order_of_the_features() -> None:
    assert admitted(GUARD) == Admitted((9, "BOS", 4.5), ())


def test_a_category_that_training_never_saw_is_refused() -> None:
    (reason,) = refused(GUARD, dest="ILM").reasons
    assert (reason.kind, reason.subject) == ("unseen-category", "dest")
    assert '"ILM", which training never saw: expected one of ATL, BOS, SFO' in reason.message


def test_a_penguin_breaks_the_contract() -> None:
    (reason,) = refused(GUARD, dest="penguin").reasons
    assert reason.kind == "breaks-contract"
    assert '"penguin": the contract of flights says that it matches' in reason.message


@pytest.mark.parametrize("value", ["penguin", True, [9], {"hour": 9}, 10**400])
def test_a_value_of_the_wrong_type_is_refused(value: Json) -> None:
    (reason,) = refused(GUARD, hour=value).reasons
    assert reason.kind == "wrong-type"
    assert "expected a finite number" in reason.message


def test_a_number_for_a_category_is_refused() -> None:
    assert refused(GUARD, dest=3).reasons[0].kind == "wrong-type"


def test_a_value_outside_the_training_range_is_answered_and_flagged() -> None:
    assert admitted(GUARD, hour=2).flags == ("hour outside training range 5..23: 2",)


def test_a_value_outside_the_training_range_is_refused_when_the_model_says_so() -> None:
    (reason,) = refused(replace(GUARD, refuses_outside=True), hour=2).reasons
    assert reason.kind == "outside-training-range"
    assert "2, outside the training range 5..23" in reason.message


@pytest.mark.parametrize("edge", [5, 23, 5.0])
def test_the_ends_of_the_training_range_are_inside(edge: float) -> None:
    assert admitted(GUARD, hour=edge).flags == ()


def test_a_missing_value_is_answered_where_training_had_some() -> None:
    verdict = admitted(GUARD, wind_speed=None)
    assert verdict.row == (9, "BOS", None)
    assert verdict.flags == ("wind_speed missing: answered without it",)


def test_a_missing_value_is_refused_where_training_always_had_one() -> None:
    assert refused(GUARD, dest=None).reasons[0].kind == "missing-feature"


def test_an_unknown_feature_is_refused_with_the_nearest_name() -> None:
    (reason,) = refused(GUARD, wind_sped=3).reasons
    assert reason.kind == "unknown-feature"
    assert reason.message.endswith('Did you mean "wind_speed"?')


def test_a_missing_key_field_is_refused() -> None:
    (reason,) = refused(replace(GUARD, key=("carrier", "tail"))).reasons
    assert (reason.kind, reason.subject) == ("missing-key", "tail")


@pytest.mark.parametrize(
    ("type_", "fitting", "unfitting"),
    [
        ("long", [7, -7], ["7", "1e1", 1e1, 7.0, True]),
        ("double", [7, 7.5], ["7.5", False]),
        ("string", ["UA"], [7, True]),
        ("boolean", [True], ["true", 1]),
        ("date", ["2013-09-03"], [20130903, "soon", "2013-09-03T00:00:00Z", "20130903"]),
        ("timestamptz", ["2013-09-03T10:00:00Z", "2013-09-03 12:00+02:00"], [0, "soon"]),
        ("int", [7], [2**31]),
        ("long", [2**31], [2**63]),
        ("decimal(9,2)", [7, 7.25], [7.125, "7.25"]),
        ("time", ["10:30:00"], ["10:30", 1030]),
        ("uuid", [f"{UUID(int=171)}"], [f"{UUID(int=171)}".upper(), UUID(int=171).hex]),
        ("binary", [], ["QUI="]),
    ],
)
def test_a_key_is_of_the_type_of_its_column_or_refused(
    type_: str, fitting: list[Json], unfitting: list[Json]
) -> None:
    guard = replace(GUARD, key_types={"carrier": "string", "flight": type_})
    for value in fitting:
        asked = replace(question(), key={"carrier": "UA", "flight": value})
        assert isinstance(check(guard, asked), Admitted), value
    for value in unfitting:
        verdict = check(guard, replace(question(), key={"carrier": "UA", "flight": value}))
        assert isinstance(verdict, Refused), value
        (reason,) = verdict.reasons
        assert (reason.kind, reason.subject) == ("wrong-key-type", "flight")
        assert f"expected a value of type {type_}" in reason.message


@pytest.mark.parametrize(
    ("sent", "mend"),
    [
        ("2025-06-10T00:00:00Z", 'Write it as "2025-06-10".'),
        ("2025-06-10T00:00:00+02:00", 'Write it as "2025-06-10".'),
        ("2025-06-31", 'Write it in the form "2024-03-01".'),
        (20250610, 'Write it in the form "2024-03-01".'),
    ],
)
def test_a_date_that_is_not_written_as_one_is_refused_with_the_day_that_was_meant(
    sent: Json, mend: str
) -> None:
    guard = replace(GUARD, key_types={"flight": "date"})
    verdict = check(guard, replace(question(), key={"carrier": "UA", "flight": sent}))
    assert isinstance(verdict, Refused)
    assert verdict.reasons[0].message.endswith(mend)


def test_every_reason_is_said_at_once() -> None:
    kinds = [reason.kind for reason in refused(GUARD, hour="x", dest="ILM", nonsense=1).reasons]
    assert kinds == ["unknown-feature", "wrong-type", "unseen-category"]


def test_an_event_outside_the_intended_period_is_answered_and_flagged() -> None:
    until = Window(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 9, 1, tzinfo=UTC))
    assert admitted(replace(GUARD, intended=until)).flags == (
        "time 2013-09-03T10:00:00Z outside the period the model is intended for: "
        "2013-07-01 to 2013-09-01",
    )


def test_an_event_outside_the_intended_period_is_refused_when_the_model_says_so() -> None:
    until = Window(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 9, 1, tzinfo=UTC))
    guard = replace(GUARD, intended=until, refuses_outside_period=True)
    (reason,) = refused(guard).reasons
    assert (reason.kind, reason.subject) == ("outside-intended-period", "time")
    assert "2013-09-03T10:00:00Z, outside the period" in reason.message
    assert isinstance(check(replace(guard, intended=None), question()), Admitted)


@pytest.mark.parametrize(
    ("column", "value", "broken"),
    [
        (ColumnTerm("x", "long"), 1.5, "is a whole number"),
        (ColumnTerm("x", "long"), 2.0, None),
        (ColumnTerm("x", "double", minimum=Bound("0.1")), 0.05, "is at least 0.1"),
        (ColumnTerm("x", "double", minimum=Bound("0.1", exclusive=True)), 0.05, "is above 0.1"),
        (ColumnTerm("x", "long", maximum=Bound("5")), 5, None),
        (ColumnTerm("x", "long", maximum=Bound("5", exclusive=True)), 5, "is below 5"),
        (ColumnTerm("x", "string", shortest=2), "a", "has at least 2 characters"),
        (ColumnTerm("x", "string", longest=2), "abc", "has at most 2 characters"),
        (ColumnTerm("x", "string", values=("a", "b")), "c", "is one of a, b"),
        (ColumnTerm("x", "long", values=("1", "2")), 3, "is one of 1, 2"),
        (ColumnTerm("x", "long", values=("1", "2")), 2.0, None),
    ],
)
def test_each_term_of_a_contract_is_checked(
    column: ColumnTerm, value: float | str, broken: str | None
) -> None:
    assert list(broken_promises(column, value)) == ([broken] if broken else [])
