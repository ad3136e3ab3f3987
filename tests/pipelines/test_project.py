"""`instep.yaml`: every key has a meaning, and only `lake` is needed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from instep.errors import InvalidError, NotFoundError
from instep.pipelines.address import LakeAddress, LakePlace, Secret
from instep.pipelines.project import Approvals, Person, find_lake, load_project, parse_project

WHOLE = """\
lake: data/lake   # where everything is kept
people:
  ana: {role: data scientist, email: ana@example.org}
  ben:
environments: {prod: {why: What consumers see.}}
policies:
  approvals: {model: 2}
budgets:
  run: {time: 30 minutes, memory_gb: 2}
prices: {currency: EUR, cpu_hour: 0.05, gb_month: 0.02}
"""


def test_every_key_is_read() -> None:
    found = parse_project(WHOLE)
    assert found.people["ana"] == Person("ana", "data scientist", "ana@example.org")
    assert found.people["ben"] == Person("ben")
    assert found.environments == ("prod",)
    assert found.approvals == Approvals(arrival=0, project=1, pipeline=1, model=2)
    assert found.run_budget.time == timedelta(minutes=30)
    assert found.run_budget.memory_bytes == 2 << 30
    assert found.prices is not None and found.prices.cpu_hour == 0.05


def test_only_the_lake_is_needed_and_people_may_be_a_list() -> None:
    assert parse_project("lake: lake\n").people == {}
    assert set(parse_project("lake: lake\npeople: [ana, ben]\n").people) == {"ana", "ben"}


def test_an_unknown_key_is_named_with_its_place_and_the_nearest() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_project(WHOLE.replace("policies:", "polices:"))
    assert caught.value.kind == "unknown-key"
    assert 'instep.yaml:6:1: key "polices"' in str(caught.value)
    assert 'Did you mean "policies"?' in str(caught.value)


@pytest.mark.parametrize("line", ["lake: data/lake", "lake:   'data/lake'", '"lake": data/lake'])
def test_the_lake_is_found_however_it_is_written(tmp_path: Path, line: str) -> None:
    (tmp_path / "instep.yaml").write_text(WHOLE.replace("lake: data/lake", line))
    assert find_lake(tmp_path) == LakePlace((tmp_path / "data/lake").resolve())
    assert load_project(tmp_path).lake == LakeAddress("data/lake")


def test_a_folder_without_the_file_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_lake(tmp_path)
    assert caught.value.kind == "no-project"


def test_what_nothing_names_is_kept_as_long_as_the_policies_say() -> None:
    assert parse_project("lake: lake").keep_days == 30
    assert parse_project("lake: lake\npolicies: {keep: 3 months}").keep_days == 90
    with pytest.raises(InvalidError) as caught:
        parse_project("lake: lake\npolicies: {keep: soon}")
    assert caught.value.kind == "bad-document"


def test_a_token_is_named_and_never_written() -> None:
    found = parse_project("lake: lake\npeople: {ana: {token: {secret: ANA_TOKEN}}}\n")
    assert found.people["ana"].token == Secret("ANA_TOKEN")
    with pytest.raises(InvalidError) as caught:
        parse_project("lake: lake\npeople: {ana: {token: hunter2}}\n")
    assert "expected {secret: NAME}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
