"""One byte form for every value that has an id, and the digest of it.

The form is RFC 8785 JSON restricted to what is the same in every language: no floats, strings in
NFC, instants as integer microseconds. A record's type and version are its first word, so that two
kinds of record never share an id.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from instep.errors import InvalidError

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
JsonObject = Mapping[str, Json]

_IN_ORDER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def canonical_bytes(value: Json) -> bytes:
    """Returns the RFC 8785 form of `value`.

    Raises:
        TypeError: a float, or a type JSON does not have, is inside: ids never hold floats.
        InvalidError (kind "same-name"): two names of one record are the same in NFC.
    """
    return _ENCODER.encode(_ordered(value)).encode()


def canonical_parts(value: Json) -> Json:
    """Returns `value` with its names in order and its strings in NFC, of plain dicts and lists.

    Raises:
        As `canonical_bytes`.
    """
    return _ordered(value)


def canonical_bytes_of_parts(value: Json) -> bytes:
    """Returns `canonical_bytes(value)` of plain dicts and lists of canonical parts, faster.

    Whoever changes one entry of many need not look through all the others again.
    """
    text = _IN_ORDER.encode(value)
    # Beyond ASCII the order of names is another one: by UTF-16.
    return text.encode() if text.isascii() else canonical_bytes(value)


def digest_of(kind: str, value: Json) -> str:
    """Returns the SHA-256 (hex) of a record of type `kind`, such as "instep.commit.v1"."""
    return digest_of_bytes(kind, canonical_bytes(value))


def to_microseconds(at: datetime) -> int:
    """Returns an aware instant as microseconds since 1970-01-01 UTC, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Returns the UTC instant `value` microseconds after 1970-01-01."""
    return _EPOCH + value * _MICROSECOND


def digest_of_bytes(kind: str, canonical: bytes) -> str:
    """Returns what `digest_of` returns, for a value that is in its canonical form already."""
    return hashlib.sha256(kind.encode() + b"\n" + canonical).hexdigest()


def _ordered(value: Json) -> Json:
    match value:
        case str():
            return value if value.isascii() else unicodedata.normalize("NFC", value)
        case None | bool() | int():
            return value
        case dict() if all(map(str.isascii, value)):
            # Nearly all keys are ASCII, whose order is the same in every encoding.
            return {name: _ordered(value[name]) for name in sorted(value)}
        case list():
            return [_ordered(item) for item in value]
        case Mapping():
            named = {unicodedata.normalize("NFC", name): item for name, item in value.items()}
            if len(named) != len(value):
                raise _same_name(value)
            names = sorted(named, key=lambda name: name.encode("utf-16-be"))
            return {name: _ordered(named[name]) for name in names}
        case Sequence() if not isinstance(value, bytes | bytearray):
            return [_ordered(item) for item in value]
        case _:
            raise TypeError(f"{value!r} ({type(value).__name__}) has no canonical form")


def _same_name(value: Mapping[str, Json]) -> InvalidError:
    seen: set[str] = set()
    for name in value:
        normal = unicodedata.normalize("NFC", name)
        if normal in seen:
            break
        seen.add(normal)
    return InvalidError(
        f'Two names are both "{normal}" and differ only in how Unicode writes them: expected '
        "names that stay different in NFC. Rename one of them.",
        kind="same-name",
        name=normal,
    )
