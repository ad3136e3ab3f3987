"""One measured figure, what it is held against, and how it is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".bench"
"""Where benches keep what they build; it may be removed at any time."""

Extra = Mapping[str, float | int | str | bool | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """`ratio` is `figure` over `against`; `against_what` says what that is."""

    bench: str
    figure: float
    unit: str
    against: float
    against_what: str
    more: Extra = field(default_factory=dict)

    def to_line(self) -> str:
        return json.dumps(
            {
                "bench": self.bench,
                "figure": round(self.figure, 4),
                "unit": self.unit,
                "against": round(self.against, 4),
                "ratio": round(self.figure / self.against, 3) if self.against else None,
                "against_what": self.against_what,
                **{
                    name: round(value, 3) if isinstance(value, float) else value
                    for name, value in self.more.items()
                },
            }
        )


def say(text: str) -> None:
    """Prints progress to standard error, so that figures stay alone on output."""
    print(text, file=sys.stderr, flush=True)
