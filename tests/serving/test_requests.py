"""A request is read strictly, or refused with what was expected."""

from __future__ import annotations

import pytest
from serving_builders import START

from instep.errors import InvalidError
from instep.serving.requests import parse_question


def test_a_request_becomes_a_question() -> None:
    asked = parse_question(
        b'{"key": {"flight": 1}, "time": "2013-09-03T10:00:00Z", "features": {"hour": 9}}'
    )
    assert (asked.key, asked.event_at, asked.features) == ({"flight": 1}, START, {"hour": 9})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"penguin", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"kee": {}, "time": "2013-09-03", "features": {}}', 'did you mean "key"'),
        (b'{"key": {}, "time": "2013-09-03"}', '"features" is not an object'),
        (b'{"key": {"a": [1]}, "time": "2013-09-03", "features": {}}', "plain values"),
        (b'{"key": {}, "time": 3, "features": {}}', '"time" is not a text'),
        (b'{"key": {}, "time": "2013-09-03", "features": {"a": NaN}}', "not a JSON number"),
        (b'{"key": {}, "time": "2013-09-03", "features": {"a": 1, "a": 2}}', "given twice"),
    ],
)
def test_anything_else_is_a_bad_request(body: bytes, said: str) -> None:
    with pytest.raises(InvalidError) as error:
        parse_question(body)
    assert error.value.kind == "bad-request"
    assert said in error.value.message


def test_a_time_that_cannot_be_read_is_said() -> None:
    with pytest.raises(InvalidError) as error:
        parse_question(b'{"key": {}, "time": "soon", "features": {}}')
    assert error.value.kind == "bad-instant"
