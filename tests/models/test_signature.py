from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_builders import departures

from instep.errors import InvalidError
from instep.models.signature import Signature, learn_signature

FEATURES = ("hour", "carrier", "wind", "is_holiday")

rows = st.lists(
    st.tuples(
        st.integers(0, 23),
        st.none() | st.sampled_from(["A", "B", "C", "Z", ""]),
        st.none() | st.floats(0, 40),
        st.none() | st.booleans(),
    ),
    max_size=20,
)


def test_a_signature_remembers_what_training_saw() -> None:
    hour, carrier, wind, holiday = learn_signature(departures(10), FEATURES).features

    assert (hour.type, hour.minimum, hour.maximum, hour.has_missing) == ("number", 0, 19, False)
    assert (carrier.type, carrier.categories) == ("category", ("A", "B", "C"))
    assert wind.has_missing
    assert holiday.type == "boolean"


def test_numbers_are_themselves_text_is_a_code_and_missing_is_nan() -> None:
    signature = learn_signature(departures(10), FEATURES)

    matrix, unseen = signature.matrix(
        {"hour": [3, 4], "carrier": ["C", None], "wind": [None, 1.5], "is_holiday": [True, False]}
    )

    np.testing.assert_array_equal(matrix, [[3, 2, np.nan, 1], [4, np.nan, 1.5, 0]])
    assert not unseen.any()


@given(rows)
def test_serving_and_training_see_the_same_matrix(
    values: list[tuple[int, str | None, float | None, bool | None]],
) -> None:
    signature = learn_signature(departures(10), FEATURES)
    columns = {name: [row[place] for row in values] for place, name in enumerate(FEATURES)}
    table = pa.table(
        {
            "hour": pa.array(columns["hour"], pa.int64()),
            "carrier": pa.array(columns["carrier"], pa.string()),
            "wind": pa.array(columns["wind"], pa.float64()),
            "is_holiday": pa.array(columns["is_holiday"], pa.bool_()),
        }
    )

    served, served_unseen = signature.matrix(columns)
    trained, trained_unseen = signature.matrix_of(table)

    np.testing.assert_array_equal(served, trained)
    np.testing.assert_array_equal(served_unseen, trained_unseen)
    assert list(served_unseen) == [row[1] in ("Z", "") for row in values]


def test_a_signature_survives_json() -> None:
    signature = learn_signature(departures(10), FEATURES)

    assert Signature.from_json(signature.to_json()) == signature


def test_a_feature_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(InvalidError, match="time_hour") as error:
        learn_signature(departures(2), ("time_hour",))

    assert error.value.kind == "unsupported-feature"
