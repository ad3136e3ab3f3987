"""Who acts: who is named, else the system's user or the only person, never one of several."""

from __future__ import annotations

import pytest

from instep.changes.people import check_actor, who_acts
from instep.errors import InvalidError, RefusedError
from instep.pipelines.project import ProjectConfig, parse_project


def project(people: str) -> ProjectConfig:
    return parse_project(f"lake: lake\npeople: [{people}]\n")


@pytest.mark.parametrize(
    ("people", "named", "user", "expected"),
    [
        ("ana, ben", "ben", "ana", "ben"),
        ("ana, ben", None, "ben", "ben"),
        ("ana", None, "root", "ana"),
        ("ana, ben", None, "root", None),
        ("", None, "root", "root"),
        ("ana", "zoe", "root", "zoe"),
    ],
)
def test_who_acts(people: str, named: str | None, user: str, expected: str | None) -> None:
    assert who_acts(project(people), named, user) == expected


def test_who_is_named_must_be_one_of_the_people() -> None:
    with pytest.raises(RefusedError, match="not among the people"):
        check_actor(project("ana"), "zoe")
    with pytest.raises(InvalidError, match="expected one of ana, ben"):
        check_actor(project("ana, ben"), None)
