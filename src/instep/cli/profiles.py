"""What profiles look like to a person: of one commit, and between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instep.canonical import Json
from instep.cli.output import counted, table
from instep.history.locks import writing
from instep.history.repository import Repository
from instep.tables.content import TableContent
from instep.tables.profile import ColumnProfile
from instep.tables.profile_diff import ProfileChange, diff_profiles


@dataclass(frozen=True, slots=True)
class ShownProfile:
    """The columns of a table at one commit."""

    name: str
    table: str
    columns: tuple[ColumnProfile, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "table": self.table,
            "columns": [column.to_json() for column in self.columns],
        }

    def to_text(self) -> str:
        rows = max((column.count for column in self.columns), default=0)
        head = f"table/{self.table} at {self.name}: {counted(rows, 'row')}"
        header = ("column", "type", "nulls", "least", "most", "mean", "median", "different")
        notes = _notes(self.columns)
        return "\n".join([head, table([_row(one) for one in self.columns], header), *notes])


@dataclass(frozen=True, slots=True)
class ProfileDiff:
    """What differs between a table's profiles at two commits."""

    names: tuple[str, str]
    table: str
    changes: tuple[ProfileChange, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "before": self.names[0],
            "after": self.names[1],
            "table": self.table,
            "changes": [change.to_json() for change in self.changes],
        }

    def to_text(self) -> str:
        head = f"table/{self.table} from {self.names[0]} to {self.names[1]}:"
        lines = [f"  {_subject(change)}{change.text}" for change in self.changes]
        return "\n".join(
            [head, *(lines or ["  nothing differs beyond the errors of the profiles"])]
        )


def shown_profile(repo: Repository, what: str, name: str) -> ShownProfile:
    """Returns the profile of a table at a commit; files never profiled are read.

    Raises:
        NotFoundError: there is no such commit, or it has no such table.
    """
    return ShownProfile(what, name, tuple(_profiles(repo, what, name).values()))


def profile_diff(repo: Repository, before: str, after: str, name: str) -> ProfileDiff:
    """Returns what differs between the profiles of a table at two commits.

    Raises:
        NotFoundError: there is no such commit, or one has no such table.
    """
    changes = diff_profiles(_profiles(repo, before, name), _profiles(repo, after, name))
    return ProfileDiff((before, after), name, changes)


def _profiles(repo: Repository, what: str, name: str) -> dict[int, ColumnProfile]:
    from instep.tables.profile_keep import profile_table
    from instep.tables.read import schema_of

    content = TableContent.from_content(repo.content(repo.resolve(what), f"table/{name}"))
    with writing(repo.root, repo.store):
        profiles = profile_table(repo.root, content)
    ids = (column.id for column in schema_of(repo.root, content).columns)
    return dict(zip(ids, profiles, strict=True))


def _subject(change: ProfileChange) -> str:
    return "" if change.column is None else f"{change.column}: "


def _row(one: ColumnProfile) -> tuple[str, ...]:
    about = "" if "distinct" in one.exact else "~"
    middle = f"{one.quantiles[50]:.6g}" if one.quantiles else ""
    return (
        one.name,
        one.type,
        f"{100 * one.null_share:.3g} %",
        one.minimum or "",
        one.maximum or "",
        "" if one.mean is None else f"{one.mean:.6g}",
        middle if not middle or "quantiles" in one.exact else f"~{middle}",
        f"{about}{one.distinct:,}",
    )


def _notes(columns: Sequence[ColumnProfile]) -> list[str]:
    """Says how far estimates may be off; the worst of all columns."""
    distinct = max((one.distinct_error for one in columns), default=0.0)
    ranks = max((one.quantile_error for one in columns), default=0.0)
    found = []
    if distinct:
        found.append(f"numbers of different values within {100 * distinct:.2g} %")
    if ranks:
        found.append(f"ranks within {100 * ranks:.2g} points")
    return [f"~ is estimated: {', '.join(found)}, in 999 of 1,000 cases."] if found else []
