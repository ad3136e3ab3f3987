"""Writes Avro object container files: as much of Avro as Iceberg's manifests need.

Source: https://avro.apache.org/docs/1.12.0/specification/. Reading Avro is not here: Instep reads
the JSON copies that it keeps beside its manifests, and copies records as bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

AvroType = str | Mapping[str, Any] | list[Any]  # JSON, which nests without end
"""An Avro schema as its JSON."""

AvroValue = (
    None | bool | int | float | str | bytes | Sequence["AvroValue"] | Mapping[str, "AvroValue"]
)

Encoder = Callable[[Any], bytes]  # an AvroValue of the type that the encoder was made for

_MAGIC = b"Obj\x01"


def container_bytes(
    schema: str, pieces: Sequence[bytes], metadata: Mapping[str, str], count: int
) -> tuple[bytes, tuple[int, int]]:
    """Returns a container file of one deflated block, and where in it the deflated bytes lie.

    `schema` is JSON, `pieces` are the bytes of `count` records. The same input gives
    the same bytes.
    """
    packer = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    block = packer.compress(b"".join(pieces)) + packer.flush()
    header = {**metadata, "avro.schema": schema, "avro.codec": "deflate"}
    # The marker only has to be unlikely inside the block.
    marker = hashlib.sha256(block).digest()[:16]
    before = b"".join((_MAGIC, _map(header), marker, long(count), long(len(block))))
    return before + block + marker, (len(before), len(block))


def block_records(data: bytes, block: tuple[int, int]) -> bytes:
    """Returns the inflated records of a container file that `container_bytes` made."""
    start, length = block
    return zlib.decompress(data[start : start + length], wbits=-zlib.MAX_WBITS)


def has_schema(data: bytes, block: tuple[int, int], schema: str) -> bool:
    """Says whether the records of a container file that `container_bytes` made are of a schema."""
    return _bytes(b"avro.schema") + _bytes(schema.encode()) in data[: block[0]]


def schema_text(schema: AvroType) -> str:
    """Returns a schema as a container file's header has it."""
    return json.dumps(schema, separators=(",", ":"))


def encoder(schema: AvroType) -> Encoder:
    """Returns a function that encodes values of a type in Avro's binary form.

    Values of another type raise TypeError, AttributeError or struct.error: a fault of the caller.
    """
    match schema:
        case [_, inner]:
            encode = encoder(inner)
            return lambda value: b"\x00" if value is None else b"\x02" + encode(value)
        case {"type": "record", "fields": [*fields]}:
            parts = [(field["name"], encoder(field["type"])) for field in fields]
            return lambda value: b"".join([one(value[name]) for name, one in parts])
        case {"type": "array", "items": items}:
            return _array(encoder(items))
        case {"type": "fixed"}:
            return bytes
        case {"type": str() as plain, "logicalType": _}:
            return encoder(plain)
        case "boolean":
            return lambda value: b"\x01" if value else b"\x00"
        case "int" | "long":
            return long
        case "float":
            return struct.Struct("<f").pack
        case "double":
            return struct.Struct("<d").pack
        case "string":
            return lambda value: _bytes(value.encode())
        case "bytes":
            return _bytes
        case _:
            raise TypeError(f"{schema!r} is no Avro type that Iceberg's manifests need")


def long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, lowest first."""
    rest = value << 1 if value >= 0 else ((-value) << 1) - 1
    if rest <= 0x7F:
        return bytes((rest,))
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _array(encode: Encoder) -> Encoder:
    def encoded(values: Sequence[Any]) -> bytes:  # of the element's type
        if not values:
            return b"\x00"
        return b"".join([long(len(values)), *[encode(one) for one in values], b"\x00"])

    return encoded


def _bytes(value: bytes) -> bytes:
    return long(len(value)) + value


def _map(values: Mapping[str, str]) -> bytes:
    pairs = b"".join(_bytes(key.encode()) + _bytes(text.encode()) for key, text in values.items())
    return long(len(values)) + pairs + b"\x00"
