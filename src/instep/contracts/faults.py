"""What is wrong with a contract, gathered with the place of each fault in its document."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from instep.documents import Place, load_yaml, position
from instep.errors import InvalidError


class Faults:
    """Gathers what is wrong, each with its place in the document."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str, str]] = []

    def add(self, place: Place, message: str, kind: str = "bad-contract") -> None:
        self.found.append((place, message, kind))

    def refuse(self, place: Place, option: str, mend: str) -> None:
        """Records an option that promises something that is not checked."""
        self.add(
            (*place, option),
            f'"{option}" would promise a check that is not run: expected only terms that are '
            f"checked. {mend}",
            "unsupported-term",
        )

    def throw(self, text: str, path: str) -> None:
        if not self.found:
            return
        tree = load_yaml(text, path)
        lines = [
            f"{path}:{line}:{column}: {message}"
            for place, message, _ in self.found
            for line, column in [position(tree, place)]
        ]
        kinds = {kind for _, _, kind in self.found}
        if kinds == {"unknown-key"}:
            raise InvalidError("\n".join(lines), kind="unknown-key", path=path, faults=(*lines,))
        if kinds == {"unsupported-term"}:
            raise InvalidError(
                "\n".join(lines), kind="unsupported-term", path=path, faults=(*lines,)
            )
        raise InvalidError("\n".join(lines), kind="bad-contract", path=path, faults=(*lines,))


def no_such_column(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    mend = f'Did you mean "{near[0]}"?' if near else "Correct the name."
    return f'column "{name}" does not exist: expected one of {", ".join(names)}. {mend}'
