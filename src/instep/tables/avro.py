"""Writes Avro object container files: as much of Avro as Iceberg's manifests need.

Source: https://avro.apache.org/docs/1.12.0/specification/. Reading Avro is not here: Instep reads
the JSON copies that it keeps beside its manifests.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

AvroType = str | Mapping[str, Any] | list[Any]  # JSON, which nests without end
"""An Avro schema as its JSON."""

AvroValue = None | bool | int | str | bytes | Sequence["AvroValue"] | Mapping[str, "AvroValue"]

_MAGIC = b"Obj\x01"


def container_bytes(
    schema: AvroType, records: Sequence[AvroValue], metadata: Mapping[str, str]
) -> bytes:
    """Returns a container file of one deflated block; the same input gives the same bytes."""
    plain = b"".join(encoded(schema, record) for record in records)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    block = packer.compress(plain) + packer.flush()
    header = {
        **metadata,
        "avro.schema": json.dumps(schema, separators=(",", ":")),
        "avro.codec": "deflate",
    }
    # The marker only has to be unlikely inside the block.
    marker = hashlib.sha256(block).digest()[:16]
    return b"".join(
        (
            _MAGIC,
            _map(header),
            marker,
            _long(len(records)),
            _long(len(block)),
            block,
            marker,
        )
    )


def encoded(schema: AvroType, value: AvroValue) -> bytes:
    """Returns one value in Avro's binary form.

    Raises:
        TypeError: `value` does not have the type that `schema` says.
    """
    match schema, value:
        case [_, inner], _:
            return b"\x00" if value is None else b"\x02" + encoded(inner, value)
        case {"type": "record", "fields": [*fields]}, Mapping():
            return b"".join(encoded(field["type"], value[field["name"]]) for field in fields)
        case {"type": "array", "items": items}, list() | tuple():
            parts = [encoded(items, item) for item in value]
            return (_long(len(parts)) + b"".join(parts) if parts else b"") + b"\x00"
        case "boolean", bool():
            return b"\x01" if value else b"\x00"
        case "int" | "long", int():
            return _long(value)
        case "string", str():
            return _bytes(value.encode())
        case "bytes", bytes():
            return _bytes(value)
        case _:
            raise TypeError(f"{value!r} is no Avro {schema!r}")


def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    rest = value << 1 if value >= 0 else ((-value) << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _map(values: Mapping[str, str]) -> bytes:
    pairs = b"".join(_bytes(key.encode()) + _bytes(text.encode()) for key, text in values.items())
    return _long(len(values)) + pairs + b"\x00"
