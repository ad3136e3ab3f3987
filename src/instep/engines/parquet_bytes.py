"""Reads and writes what a Parquet file is made of: ranges of bytes, and the footer that tells them.

All that stands in a footer is kept, known here or not, so that nothing is lost. It is a Thrift
struct in the compact protocol. Here a struct is a dict of its fields by their number, each a Thrift
type and a value; a list is the type of its elements with these.
Source of the numbers: https://github.com/apache/parquet-format, src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"PAR1"

_PIECE_BYTES = 1 << 20

Struct = dict[int, tuple[int, Any]]  # values of any Thrift type


def pieces(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    """Yields the bytes of a range, one part of it in memory at a time."""
    for place in range(start, start + length, _PIECE_BYTES):
        file.seek(place)
        yield file.read(min(_PIECE_BYTES, start + length - place))


def read_footer(path: Path) -> Struct:
    """Returns the footer of a file that is known to be Parquet, and not encrypted."""
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        protocol = TCompactProtocol(TMemoryBuffer(file.read(length)))
    return _read_struct(protocol)


def write_footer(file: BinaryIO, footer: Struct) -> None:
    """Ends a file whose pages are written."""
    from thrift.protocol.TCompactProtocol import TCompactProtocol
    from thrift.transport.TTransport import TMemoryBuffer

    buffer = TMemoryBuffer()
    _write_struct(TCompactProtocol(buffer), footer)
    data = buffer.getvalue()
    file.write(data + len(data).to_bytes(4, "little") + MAGIC)


def _read_struct(protocol: Any) -> Struct:  # thrift has no types
    found: Struct = {}
    protocol.readStructBegin()
    while True:
        _, kind, number = protocol.readFieldBegin()
        if not kind:
            break
        found[number] = (kind, _read(protocol, kind))
        protocol.readFieldEnd()
    protocol.readStructEnd()
    return found


def _read(protocol: Any, kind: int) -> Any:  # as above; a value of that kind
    from thrift.Thrift import TType

    match kind:
        case TType.STRUCT:
            return _read_struct(protocol)
        case TType.LIST:
            of, size = protocol.readListBegin()
            found = (of, [_read(protocol, of) for _ in range(size)])
            protocol.readListEnd()
            return found
        case TType.STRING:
            return protocol.readBinary()
        case TType.BOOL:
            return protocol.readBool()
        case TType.BYTE:
            return protocol.readByte()
        case TType.DOUBLE:
            return protocol.readDouble()
        case _:
            return protocol.readI64()  # i16, i32 and i64 are written alike


def _write_struct(protocol: Any, struct: Struct) -> None:  # as above
    protocol.writeStructBegin("")
    for number, (kind, value) in sorted(struct.items()):
        protocol.writeFieldBegin("", kind, number)
        _write(protocol, kind, value)
        protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def _write(protocol: Any, kind: int, value: Any) -> None:  # as above
    from thrift.Thrift import TType

    match kind:
        case TType.STRUCT:
            _write_struct(protocol, value)
        case TType.LIST:
            of, values = value
            protocol.writeListBegin(of, len(values))
            for one in values:
                _write(protocol, of, one)
            protocol.writeListEnd()
        case TType.STRING:
            protocol.writeBinary(value)
        case TType.BOOL:
            protocol.writeBool(value)
        case TType.BYTE:
            protocol.writeByte(value)
        case TType.DOUBLE:
            protocol.writeDouble(value)
        case _:
            protocol.writeI64(value)
