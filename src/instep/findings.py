"""A finding: a fact about a subject, with its severity and its evidence.

Bad data is a finding. Findings are gathered, each with its place, and never thrown one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from instep.canonical import Json


class Severity(StrEnum):
    """What a finding asks for: nothing, a look, or a stop."""

    NOTE = "note"
    WARNING = "warning"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is lasting; `subject` is a key, with the column after a dot where there is one."""

    kind: str
    subject: str
    severity: Severity
    message: str
    evidence: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "subject": self.subject,
            "severity": self.severity.value,
            "message": self.message,
            "evidence": dict(self.evidence),
        }


def stops(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns those that ask for a stop, in their order."""
    return tuple(finding for finding in findings if finding.severity is Severity.STOP)
