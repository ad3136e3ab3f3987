"""Answers which tables have another name than before, and merges what sides call differently.

A table is its uuid, its key only its name, but trees are merged by keys. So before that, what each
side did to a renamed table is put under the key that the table will have. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from instep.canonical import JsonObject
from instep.history.merge import Merge, merge
from instep.history.tree import Difference, kind_of
from instep.tables.row_merge import Take

Side = dict[str, Difference]
"""What one side did since the base, by key."""


@dataclass(frozen=True, slots=True)
class RenamedTable:
    """A table that was `before`, with the content `base`, and what it is called on each side.

    None where a side dropped it, `before` where it kept the name.
    """

    before: str
    base: JsonObject
    ours: str | None
    theirs: str | None

    @property
    def has_two_names(self) -> bool:
        """Says whether both sides gave it another name, and not the same one."""
        kept_or_gone = (self.before, None)
        is_on_both = self.ours not in kept_or_gone and self.theirs not in kept_or_gone
        return is_on_both and self.ours != self.theirs

    def __str__(self) -> str:
        return f"ours {self._did(self.ours)}, theirs {self._did(self.theirs)}"

    def _did(self, name: str | None) -> str:
        if name is None:
            return f"dropped {self.before}"
        return f"kept {name}" if name == self.before else f"renamed {self.before} to {name}"


@dataclass(slots=True)
class Aligned:
    """Both sides with each renamed table under one key.

    `before` has the former key of such a table by that key, `clashes` why its rows cannot be
    merged there, and `two_names` those that both sides renamed, by their former key. `undecided` of
    them have no name yet.
    """

    ours: Side
    theirs: Side
    before: dict[str, str] = field(default_factory=dict)
    clashes: dict[str, str] = field(default_factory=dict)
    two_names: dict[str, RenamedTable] = field(default_factory=dict)
    undecided: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    """Keys under which our side has a table only from here on."""

    def merge(self) -> Merge:
        """Returns the merge of both sides by key."""
        found = merge(self.ours.values(), self.theirs.values())
        settled = found.changes.keys() | {one.key for one in found.conflicts}
        alike = {key: self.ours[key].after for key in self.moved - settled}
        return replace(found, changes=found.changes | alike)


def new_names(side: Side) -> dict[str, str]:
    """Returns the former keys of the tables that were renamed, by those that they have now."""
    came = dict(_came(side))
    return {came[uuid]: one.key for uuid, one in _went(side) if uuid in came}


def align(
    ours: Iterable[Difference], theirs: Iterable[Difference], take: Callable[[str], Take | None]
) -> Aligned:
    """Returns both sides with each renamed table under the key that it will have.

    `take` says by its former key whose name a table gets that both sides renamed.
    """
    found = Aligned({one.key: one for one in ours}, {one.key: one for one in theirs})
    placed: list[tuple[RenamedTable, str, Side, str | None]] = []
    for one in _renamed(found.ours, found.theirs):
        chosen = take(one.before) if one.has_two_names else None
        is_theirs = one.ours in (None, one.before) or chosen is Take.THEIRS
        key = str(one.theirs if is_theirs else one.ours)
        found.before[key] = one.before
        if one.has_two_names:
            found.two_names[one.before] = one
            if chosen is None:
                found.undecided.add(one.before)
        if one.ours is None or one.theirs is None:
            found.clashes[key] = str(one)
        for side, name in ((found.ours, one.ours), (found.theirs, one.theirs)):
            if name == key:
                side[key] = replace(side[key], before=one.base)
            else:
                placed.append((one, key, side, name))
    _place(found, placed)
    return found


def _place(found: Aligned, placed: list[tuple[RenamedTable, str, Side, str | None]]) -> None:
    """Puts under its new key what a side did to a table that it calls otherwise.

    All leave their places before any takes another's, since names may be exchanged.
    """
    taken = [side.pop(name, None) if name else None for _, _, side, name in placed]
    for (one, key, side, name), moved in zip(placed, taken, strict=True):
        was_anothers = moved is not None and name != one.before and moved.before is not None
        if key in side or was_anothers:
            _leave(found, one, key, side, name, moved)
        elif name is None:
            side[key] = Difference(key, one.base, None)
        elif moved is not None:
            side[key] = Difference(key, one.base, moved.after)
            if side is found.ours:
                found.moved.add(key)
                if name != one.before:
                    found.theirs.setdefault(name, Difference(name, moved.after, None))


def _leave(
    found: Aligned,
    one: RenamedTable,
    key: str,
    side: Side,
    name: str | None,
    moved: Difference | None,
) -> None:
    """Leaves a table where a side has it, since the side has another one under the key."""
    if name is not None:
        side[name] = moved or Difference(name, one.base, one.base)
    found.clashes[key] = f"two tables would have this name: {one}"
    found.clashes[one.before] = f"{key} is the name of another table on one side: {one}"
    if one.has_two_names:
        found.undecided.add(one.before)


def _renamed(ours: Side, theirs: Side) -> Iterator[RenamedTable]:
    """Yields the tables of the base that have another name on one side at least."""
    gone = {uuid: one for side in (ours, theirs) for uuid, one in _went(side)}
    names = [(dict(_went(side)), dict(_came(side))) for side in (ours, theirs)]
    for uuid, one in gone.items():
        mine, yours = (came.get(uuid) if uuid in went else one.key for went, came in names)
        if {mine, yours} - {one.key, None} and one.before is not None:
            yield RenamedTable(one.key, one.before, mine, yours)


def _went(side: Side) -> Iterator[tuple[str, Difference]]:
    """Yields, by their uuid, the tables that a side has no more under the key of the base."""
    for one in side.values():
        uuid = _uuid(one.key, one.before)
        if uuid and uuid != _uuid(one.key, one.after):
            yield uuid, one


def _came(side: Side) -> Iterator[tuple[str, str]]:
    """Yields, by their uuid, the keys under which a side has tables that the base has not there."""
    for one in side.values():
        uuid = _uuid(one.key, one.after)
        if uuid and uuid != _uuid(one.key, one.before):
            yield uuid, one.key


def _uuid(key: str, content: JsonObject | None) -> str | None:
    """Returns which table a content is; None where it is none."""
    return str(content["uuid"]) if content and kind_of(key) == "table" else None
