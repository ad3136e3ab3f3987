"""What the key of a table points to, in a commit."""

from __future__ import annotations

from dataclasses import dataclass

from instep.canonical import JsonObject
from instep.errors import InternalError

TYPE = "instep.table.v1"


@dataclass(frozen=True, slots=True)
class TableContent:
    """One immutable state of one Iceberg table.

    `metadata` is the path of its metadata JSON relative to the lake, `digest` the SHA-256 of that
    file, `files` the SHA-256 over the sorted SHA-256s of the live files: equal proves equal rows,
    unequal proves nothing.
    """

    metadata: str
    digest: str
    uuid: str
    files: str

    def to_content(self) -> JsonObject:
        return {
            "type": TYPE,
            "metadata": self.metadata,
            "digest": self.digest,
            "uuid": self.uuid,
            "files": self.files,
        }

    @classmethod
    def from_content(cls, content: JsonObject) -> TableContent:
        if content.get("type") != TYPE:
            raise InternalError(
                f"Content of type {content.get('type')!r} was read as a table: expected {TYPE}. "
                "Report this as a fault of Instep.",
                kind="wrong-content",
            )
        return cls(
            metadata=str(content["metadata"]),
            digest=str(content["digest"]),
            uuid=str(content["uuid"]),
            files=str(content["files"]),
        )
