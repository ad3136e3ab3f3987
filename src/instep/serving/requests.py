"""The body of a prediction request to a question, strictly.

A body is `{"key": {...}, "time": "2013-09-03T10:00:00Z", "features": {...}}`: nothing else is
read, nothing is guessed, a name given twice is an error. Whether a model may answer is the guard's.
"""

from __future__ import annotations

import difflib
import json
from typing import Any, NoReturn

from instep.clock import parse_instant
from instep.errors import InvalidError
from instep.serving.records import Question

MAXIMUM_BYTES = 1024 * 1024
"""A request is one entity: a mebibyte is far more than one needs."""

_FIELDS = ("key", "time", "features")


def parse_question(body: bytes) -> Question:
    """Returns the question in `body`.

    Raises:
        InvalidError (kind "bad-request"): not JSON, or not of the form above.
        InvalidError (kind "bad-instant"): `time` cannot be read.
    """
    try:
        tree = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise _bad(f"The body is not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise _bad("The body is not an object")
    for name in tree:
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.6)
            raise _bad(
                f'The body has a field "{name}"' + (f' (did you mean "{near[0]}"?)' if near else "")
            )
    key, time, features = (tree.get(name) for name in _FIELDS)
    if not isinstance(key, dict) or any(isinstance(one, (dict, list)) for one in key.values()):
        raise _bad('"key" is not an object of plain values')
    if not isinstance(features, dict):
        raise _bad('"features" is not an object')
    if not isinstance(time, str):
        raise _bad('"time" is not a text')
    return Question(key=key, event_at=parse_instant(time), features=features)


def _bad(what: str) -> InvalidError:
    return InvalidError(
        f'{what}: expected {{"key": {{...}}, "time": "2013-09-03T10:00:00Z", "features": {{...}}}} '
        "and nothing else. Correct the request.",
        kind="bad-request",
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # as the JSON decoder gives them
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_not_a_number)
