"""Which rows train and which rows test: walk-forward windows within a slice.

Always: a window trains before its cut and tests from it; a row trains only if its target was known
before the cut; test windows do not overlap, so no row is scored twice for one candidate. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from instep.clock import Window, format_instant
from instep.errors import InvalidError
from instep.models.spec import Windows


@dataclass(frozen=True, slots=True)
class Fold:
    """Train on the rows of `train` that were known at its end; test on the rows of `test`."""

    train: Window
    test: Window

    def __post_init__(self) -> None:
        assert self.train.end == self.test.start, "a fold is cut at one instant"


@dataclass(frozen=True, slots=True)
class Folds:
    """The folds in time order; `dropped` is the test window that would have left the slice."""

    folds: tuple[Fold, ...]
    dropped: Window


def walk_forward(within: Window, windows: Windows) -> Folds:
    """Returns the folds of the slice `within`, the first of which trains from its start.

    Raises:
        InvalidError (kind "windows-overlap"): `step` is shorter than `test`.
        InvalidError (kind "no-windows"): the slice is shorter than `train` and `test` together.
    """
    folds: list[Fold] = []
    first_cut = windows.train.after(within.start)
    times = 0
    while True:
        cut = windows.step.after(first_cut, times)
        test = Window(cut, windows.test.after(cut))
        if windows.step.after(cut) < test.end:
            raise InvalidError(
                f"Test windows of {windows.test} every {windows.step} overlap: expected a step at "
                "least as long as a test window. Lengthen `step`.",
                kind="windows-overlap",
            )
        if test.end > within.end:
            break
        folds.append(Fold(Window(windows.train.after(cut, -1), cut), test))
        times += 1
    if not folds:
        raise InvalidError(
            f"Slice {within} has no complete window: expected {windows.train} to train and "
            f"{windows.test} to test, until {format_instant(test.end)}. Widen the slice or shorten "
            "the windows.",
            kind="no-windows",
        )
    return Folds(tuple(folds), test)


def final_window(within: Window, windows: Windows) -> Window:
    """Returns the window on which the chosen candidate is fitted: the slice's last `train`."""
    return Window(windows.train.after(within.end, -1), within.end)
