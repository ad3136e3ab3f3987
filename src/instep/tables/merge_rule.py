"""The three-way rule for one part of how a table is defined, and whose word counts where it fails.

What only one side changed is taken, and what both made alike. What both changed, and not alike, is
a conflict that a resolution settles for one side, or that stays open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from instep.errors import InvalidError
from instep.tables.row_merge import DefinitionConflict, Resolution, Take

T = TypeVar("T")


class Rule:
    """Applies the rule to one part after another; `open` are the conflicts that nothing settled."""

    def __init__(self, resolution: Resolution) -> None:
        self.open: list[DefinitionConflict] = []
        self.settled = 0
        self._choices = {
            what: choice for (key, what), choice in resolution.choices.items() if not key
        }
        self._otherwise = resolution.otherwise
        self._met: set[str] = set()

    def merged(
        self,
        what: str,
        values: tuple[T, T, T],
        texts: tuple[str, str, str],
        fits: Callable[[T], bool] = lambda value: True,
    ) -> T:
        """Returns what `what` will be, of what the base, ours and theirs have; `texts` say these.

        A value that does not fit all else is taken neither by the rule nor by a choice.
        """
        base, ours, theirs = values
        is_clash = ours not in (base, theirs) and theirs != base
        found = theirs if ours == base else ours
        if not is_clash and fits(found):
            return found
        take = self._take(what)
        side = theirs if take is Take.THEIRS else ours
        if take is not None and fits(side):
            self.settled += 1
        else:
            self.open.append(DefinitionConflict(what, *texts))
        return side

    def check_choices(self) -> None:
        """Holds that each choice settles something.

        Raises:
            InvalidError (kind "no-such-conflict").
        """
        for what in sorted(self._choices.keys() - self._met):
            raise InvalidError(
                f"The choice for the {what} of the table settles nothing: expected one of "
                f"{', '.join(sorted(self._met)) or 'none at all'}. Take it out, or list the "
                "conflicts again.",
                kind="no-such-conflict",
            )

    def _take(self, what: str) -> Take | None:
        self._met.add(what)
        choice = self._choices.get(what)
        if choice is None:
            return self._otherwise
        if choice.take is Take.GIVEN:
            raise InvalidError(
                f'A value is given for the {what} of the table: expected "ours" or "theirs". '
                "Take a side.",
                kind="bad-value",
            )
        return choice.take
