"""What is said when the world moves, when it does not, and when nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from watch_builders import NO_RECEIPTS, SINCE, loaded, newer

from instep.clock import Window, parse_instant
from instep.errors import InvalidError
from instep.findings import Severity
from instep.models.bundle import LoadedModel
from instep.serving.records import Predicted, PredictionRecord, Question, Reason, Refused, Source
from instep.watch.alert import Alert, Receipts, raise_alert
from instep.watch.comparison import Comparison, compare_with_baseline, score_events
from instep.watch.receipts import join_receipts
from instep.watch.shifts import Shift


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded(tmp_path_factory.mktemp("bundle"))


def watched(model: LoadedModel, table: pa.Table, days: int = 30) -> tuple[Comparison, Alert]:
    window = Window(SINCE, SINCE + timedelta(days=days))
    found = compare_with_baseline(model, score_events(model, table), window)
    return found, raise_alert(
        model.card, found, "prod", "delay", NO_RECEIPTS, ("Commit 4f2a.",), has_version_before=True
    )


def test_a_lasting_fall_is_one_alert_that_says_since_when_and_how_sure(
    model: LoadedModel,
) -> None:
    found, alert = watched(model, newer(base=0.05))

    assert alert.finding.kind == "calibration-moved"
    assert alert.finding.severity is Severity.WARNING
    assert found.since is not None
    assert abs((found.since.day - SINCE.date()).days) <= 4
    text = "\n".join(alert.sentences)
    assert "The share of late events fell to" in text
    assert f"The change began about {found.since.day}" in text
    assert "p = 0.00" in text
    assert "Commit 4f2a." in text
    assert [command.split()[1] for _, command in alert.decisions] == ["config", "rollback", "watch"]


def test_no_change_is_said_too_and_asks_for_nothing(model: LoadedModel) -> None:
    found, alert = watched(model, newer())

    assert alert.finding.kind == "unchanged"
    assert alert.finding.severity is Severity.NOTE
    assert found.now.interval is not None
    assert found.now.interval[0] < found.now.gap < found.now.interval[1]
    assert any("No lasting change" in sentence for sentence in alert.sentences)
    assert [command for _, command in alert.decisions] == ["instep watch prod"]


def test_what_is_worst_names_the_one_alert(model: LoadedModel) -> None:
    calm, _ = watched(model, newer())
    shifted = Shift("wind", 0.4, "median 10 before, 20 now")
    missed = replace(calm, is_acceptable=False, metric_now=0.1, shifts=(shifted,))

    def kind(found: Comparison) -> str:
        alert = raise_alert(
            model.card, found, "prod", "delay", NO_RECEIPTS, (), has_version_before=False
        )
        assert any("is NOT kept" in s for s in alert.sentences) != found.is_acceptable
        return alert.finding.kind

    assert kind(missed) == "acceptable-error-missed"
    assert kind(replace(missed, is_acceptable=True)) == "ranks-worse"
    assert kind(replace(calm, shifts=(shifted,))) == "features-shifted"
    assert kind(replace(calm, outside_period=3)) == "outside-intended-period"
    assert kind(replace(calm, since=None)) == "too-few-days"


def test_too_few_days_are_not_taken_for_good_news(model: LoadedModel) -> None:
    found, alert = watched(model, newer(days=5, base=0.25), days=5)

    assert found.now.interval is None
    assert any("not a sign that all is well" in sentence for sentence in alert.sentences)
    assert alert.finding.kind != "unchanged"


def test_events_outside_the_intended_period_are_told_by_event_time(model: LoadedModel) -> None:
    late = newer(start=datetime(2013, 4, 10, tzinfo=UTC))

    found, alert = watched(model, late, days=49)

    # The model was trained until 2013-03-22 and is intended for 30 days from then.
    assert found.outside_period == 24 * len(range(21, 31)) + 24 * 9
    assert any("outside the period" in sentence for sentence in alert.sentences)


@pytest.mark.parametrize(("days", "is_kept"), [(30, True), (31, False), (90, False)])
def test_a_model_is_kept_until_no_day_that_the_events_have_passed(
    model: LoadedModel, days: int, is_kept: bool
) -> None:
    # It is intended for 30 days.
    _, alert = watched(model, newer(days=days, base=0.05), days=days)

    said = [decision for decision, _ in alert.decisions]
    assert any(one.startswith("Keep it, intended until 2013-04-21") for one in said) == is_kept
    assert ("the events have passed 2013-04-21" in said[0]) != is_kept


def test_every_kind_of_key_that_serving_takes_is_joined(model: LoadedModel) -> None:
    def joined(sent: object, value: object, kind: pa.DataType) -> int:
        table = newer(days=1).slice(0, 1)
        key = pa.array([value], kind)
        table = table.set_column(table.column_names.index("flight"), "flight", key)
        at = SINCE.isoformat()
        window = Window(SINCE, SINCE + timedelta(days=1))
        scored = score_events(model, table)
        found = join_receipts([record(sent, at, 0.5)], model.card, "prod", "d", window, scored)
        return found.answered

    day = datetime(2024, 3, 1)
    assert joined(7.0, 7, pa.int64()) == 1
    assert joined(0.1, 0.1, pa.float32()) == 1
    assert joined(7.5, Decimal("7.50"), pa.decimal128(9, 2)) == 1
    assert joined(10**16, 1e16, pa.float64()) == 1
    assert joined(True, True, pa.bool_()) == 1
    assert joined("2024-03-01", day.date(), pa.date32()) == 1
    assert joined("10:30:00", time(10, 30), pa.time64("us")) == 1
    assert joined("2024-03-01", day, pa.timestamp("us")) == 1
    assert joined("2024-03-01 01:00+01:00", day, pa.timestamp("us", "UTC")) == 1
    assert joined(True, 1, pa.int64()) == 0


def test_what_serving_would_refuse_and_what_is_unknown_is_counted_and_not_scored(
    model: LoadedModel,
) -> None:
    table = newer()
    carriers = pa.array(["Z"] * 7 + table["carrier"].to_pylist()[7:])
    table = table.set_column(table.column_names.index("carrier"), "carrier", carriers)

    found, alert = watched(model, table)

    known = [late is not None for late in table["late"].to_pylist()]
    assert found.unseen == (("carrier", "Z", 7),)
    assert found.unknown == known.count(False)
    assert found.now.rows == sum(known[7:])
    assert any("Z (carrier, 7 events)" in sentence for sentence in alert.sentences)


def test_nothing_with_an_outcome_is_refused(model: LoadedModel) -> None:
    table = newer(days=2)
    unknown = pa.array([None] * table.num_rows, pa.bool_())

    with pytest.raises(InvalidError) as error:
        watched(model, table.set_column(table.column_names.index("late"), "late", unknown))

    assert error.value.kind == "nothing-to-watch"


def record(
    flight: object, at: str, value: float | None, digest: str = "d", environment: str = "prod"
) -> PredictionRecord:
    outcome = Refused((Reason("k", "s", "m"),)) if value is None else Predicted(value)
    return PredictionRecord(
        receipt="rcp_1",
        at=datetime(2013, 12, 1, tzinfo=UTC),
        mode="durable",
        source=Source(environment, "c", "delay", "1", digest),
        question=Question({"flight": flight, "time_hour": at}, parse_instant(at), {}),  # type: ignore[dict-item]
        outcome=outcome,
        flags=(),
    )


def test_receipts_are_joined_by_key_and_held_against_the_score_computed_now(
    model: LoadedModel,
) -> None:
    table = newer(days=2)
    scored = score_events(model, table)
    rows = table.to_pylist()
    first, second = rows[0], rows[1]
    same = float(scored.scores[0])
    window = Window(SINCE, SINCE + timedelta(days=2))

    found = join_receipts(
        [
            record(first["flight"], first["time_hour"].isoformat(), 0.123),
            record(float(first["flight"]), f"{first['time_hour']:%Y-%m-%dT%H:%M:%SZ}", same),
            record(second["flight"], second["time_hour"].isoformat(), 0.99),
            record(99, first["time_hour"].isoformat(), 0.2),
            record(rows[2]["flight"], rows[2]["time_hour"].isoformat(), None),
            record(rows[3]["flight"], rows[3]["time_hour"].isoformat(), 0.2, digest="other"),
            record(rows[4]["flight"], rows[4]["time_hour"].isoformat(), 0.2, environment="dev"),
            record(rows[5]["flight"], "2012-01-01", 0.2),
        ],
        model.card,
        "prod",
        "d",
        window,
        scored,
    )

    acting = 1 + (same >= 0.5)
    right = bool(second["late"]) + bool(same >= 0.5 and first["late"])
    assert found == Receipts(answered=2, agreeing=1, acting=acting, acting_right=right, unmatched=1)


def test_an_answer_that_differs_from_the_score_computed_now_is_said(model: LoadedModel) -> None:
    found, _ = watched(model, newer())

    alert = raise_alert(
        model.card, found, "prod", "delay", Receipts(10, 9, 3, 2, 0), (), has_version_before=False
    )

    assert any(
        "1 of them were asked with other features" in sentence for sentence in alert.sentences
    )


def test_the_bundle_is_all_that_watching_needs(tmp_path: Path) -> None:
    first, second = loaded(tmp_path / "a"), loaded(tmp_path / "b")

    assert watched(first, newer())[0] == watched(second, newer())[0]
