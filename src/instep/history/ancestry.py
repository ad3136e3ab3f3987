"""Which commits reach which, however far apart, in few reads.

A *stretch* is a tree of commits with one parent each; its root is the merge, or first commit, at
which it begins. Each commit knows its `jump`, some way back in its stretch, and its `span`, how
many commits that is. The lengths follow the digits of a skew binary number (Myers, "An applicative
random-access stack", 1983), so that any older commit of a stretch is a logarithm of jumps away, and
two commits at one depth jump equally far. The jump of a root is its first parent, its span 0.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from instep.errors import NotFoundError
from instep.history.store import Row, Transaction

_AHEAD = 64
"""How many commits of a way back are read with one statement."""

_COLUMNS = "own.id, own.parents, own.generation, own.jump, own.span"


Standing = tuple[int, str, int]
"""Generation, jump and span of a commit."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a commit stands in the graph. `generation` is its longest way to a first commit."""

    id: str
    parents: tuple[str, ...]
    generation: int
    jump: str
    span: int


def place_after(tx: Transaction, parents: tuple[str, ...]) -> Standing | None:
    """Returns generation, jump and span of a commit with these parents; None if one is missing."""
    if len(parents) == 1:
        return _after_one(tx, parents[0])
    if not parents:
        return 1, "", 0
    marks = ", ".join("?" for _ in parents)
    rows = tx.rows(f"select generation from commits where id in ({marks})", parents)
    if len(rows) < len(set(parents)):
        return None
    return max(row[0] for row in rows) + 1, parents[0], 0


def _after_one(tx: Transaction, parent: str) -> Standing | None:
    row = tx.row(
        "select own.generation, own.span, back.jump, back.span from commits own "
        "left join commits back on back.id = own.jump and own.span > 0 where own.id = ?",
        (parent,),
    )
    if row is None:
        return None
    return standing_after(parent, *row)


def standing_after(
    parent: str, generation: int, span: int, further: str | None, further_span: int | None
) -> Standing:
    """Returns where a commit with one parent stands, from where that and what it jumps to do."""
    if further is not None and span and span == further_span:
        return generation + 1, further, 2 * span + 1
    return generation + 1, parent, 1


def merge_base(tx: Transaction, left: str, right: str) -> str | None:
    """Returns the latest commit that both reach (highest generation), or None.

    Reads a logarithm of the commits between two merges, and each merge once.
    """
    frontier = _Frontier(_Graph(tx))
    frontier.add(left, 0)
    frontier.add(right, 1)
    best: Place | None = None
    while frontier.reaches_beyond(best):
        root, mine, others = frontier.take()
        for one in mine:
            for other in others:
                found = frontier.graph.meeting(one, other)
                best = max(best or found, found, key=lambda place: place.generation)
        if not (mine and others):
            for parent in root.parents:
                frontier.add(parent, 0 if mine else 1)
    return best.id if best else None


def is_ancestor(tx: Transaction, older: str, newer: str) -> bool:
    """Says whether `older` is `newer` or reachable from it through parents."""
    return merge_base(tx, older, newer) == older


@dataclass(frozen=True, slots=True)
class _Graph:
    """The places read so far."""

    tx: Transaction
    known: dict[str, Place] = field(default_factory=dict)

    def place(self, commit: str, ahead: int = 0) -> Place:
        """Returns where a commit stands; what it jumps to, `ahead` times, is read along."""
        if commit not in self.known:
            self._read(commit, ahead)
        return self.known[commit]

    def root(self, place: Place) -> Place:
        """Returns the beginning of the stretch that a place is in."""
        while place.span:
            place = self.place(place.jump, _AHEAD)
        return place

    def meeting(self, one: Place, other: Place) -> Place:
        """Returns the latest commit that two places of one stretch share."""
        while one.generation != other.generation:
            if one.generation < other.generation:
                one, other = other, one
            short = one.generation - one.span < other.generation
            one = self.place(one.parents[0] if short else one.jump)
        while one.id != other.id:
            if one.jump == other.jump:
                one, other = self.place(one.parents[0]), self.place(other.parents[0])
            else:
                one, other = self.place(one.jump), self.place(other.jump)
        return one

    def _read(self, commit: str, ahead: int) -> None:
        self._keep(
            self.tx.rows(
                "with recursive way (id, step) as (select id, 0 from commits where id = ? "
                "union all select own.jump, way.step + 1 from way "
                "join commits own on own.id = way.id where way.step < ? and own.jump <> '') "
                f"select {_COLUMNS} from way join commits own on own.id = way.id",
                (commit, ahead),
            )
        )
        if commit not in self.known:
            raise NotFoundError(
                f"Commit {commit} does not exist: expected the id of a commit of this lake. "
                'See "instep log".',
                kind="no-such-commit",
                commit=commit,
            )

    def _keep(self, rows: Iterable[Row]) -> None:
        """Keeps places, and those that merges among them brought in."""
        found = [_place(row) for row in rows]
        self.known.update((place.id, place) for place in found)
        brought = {parent for place in found for parent in place.parents[1:]}
        missing = sorted(brought - self.known.keys())
        if missing:
            marks = ", ".join("?" for _ in missing)
            rows = self.tx.rows(
                f"select {_COLUMNS} from commits own where id in ({marks})", missing
            )
            self.known.update((place.id, place) for place in map(_place, rows))


@dataclass(frozen=True, slots=True)
class _Frontier:
    """What is still to be looked at, by stretch; the one with the latest root is taken first.

    So when a stretch is taken, all that leads into it has been: its root was later.
    """

    graph: _Graph
    _stretches: dict[str, tuple[list[Place], list[Place]]] = field(default_factory=dict)
    _roots: list[tuple[int, str]] = field(default_factory=list)
    _latest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, commit: str, side: int) -> None:
        place = self.graph.place(commit, _AHEAD)
        root = self.graph.root(place)
        if root.id not in self._stretches:
            self._stretches[root.id] = ([], [])
            heapq.heappush(self._roots, (-root.generation, root.id))
        places = self._stretches[root.id][side]
        if place not in places:
            places.append(place)
            heapq.heappush(self._latest, (-place.generation, root.id))

    def take(self) -> tuple[Place, list[Place], list[Place]]:
        """Returns the root of the next stretch, and the places in it by side."""
        _, root = heapq.heappop(self._roots)
        mine, others = self._stretches.pop(root)
        return self.graph.known[root], mine, others

    def reaches_beyond(self, best: Place | None) -> bool:
        """Says whether something is left that is later than `best`."""
        while self._latest and self._latest[0][1] not in self._stretches:
            heapq.heappop(self._latest)
        return bool(self._latest) and (best is None or -self._latest[0][0] > best.generation)


def _place(row: Row) -> Place:
    identifier, parents, generation, jump, span = row
    return Place(identifier, tuple(json.loads(parents)), generation, jump, span)


def commits_beyond(tx: Transaction, newer: str, older: str) -> frozenset[str]:
    """Returns the commits that `newer` reaches and `older` does not.

    One walk from both, latest generation first, that ends where only shared commits are left.
    """
    sides = {older: 2}
    sides[newer] = sides.get(newer, 0) | 1
    waiting = [(-_standing(tx, commit)[0], commit) for commit in sides]
    heapq.heapify(waiting)
    found: set[str] = set()
    while any(sides[commit] == 1 for _, commit in waiting):
        _, identifier = heapq.heappop(waiting)
        if sides[identifier] == 1:
            found.add(identifier)
        for parent in _standing(tx, identifier)[1]:
            if parent not in sides:
                heapq.heappush(waiting, (-_standing(tx, parent)[0], parent))
            sides[parent] = sides.get(parent, 0) | sides[identifier]
    return frozenset(found)


def _standing(tx: Transaction, identifier: str) -> tuple[int, list[str]]:
    """Returns the generation and the parents of a commit; 0 and none where it is unknown."""
    row = tx.row("select generation, parents from commits where id = ?", (identifier,))
    return (int(row[0]), json.loads(row[1])) if row else (0, [])
