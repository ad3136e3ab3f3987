"""Where the lake is: a folder, or a folder and a database whose password nobody is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import InstepError, InvalidError, NotFoundError
from instep.history.store import Database
from instep.pipelines.address import LakeAddress, LakePlace, Secret, is_address, locate
from instep.pipelines.project import find_lake, parse_project

PASSWORD = "Tr0ub4dor"
WITH_PASSWORD = f"postgresql://ana:{PASSWORD}@db.example.org/data"
ADDRESS = "postgresql://ana@db.example.org:5433/data"


def test_a_folder_alone_means_a_sqlite_file_in_it(tmp_path: Path) -> None:
    assert parse_project("lake: data/lake\n").lake == LakeAddress("data/lake")
    assert locate(LakeAddress("lake"), tmp_path, {}) == LakePlace(tmp_path / "lake")


def test_an_address_without_a_password_may_stand_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "instep.yaml").write_text(
        f"lake:\n  folder: lake\n  database: {ADDRESS}\n  schema: flights\n"
    )
    assert find_lake(tmp_path) == LakePlace(tmp_path / "lake", Database(ADDRESS, "flights"))


def test_a_secret_is_named_in_the_file_and_found_in_the_environment(tmp_path: Path) -> None:
    address = parse_project("lake: {folder: lake, database: {secret: LAKE}}").lake
    assert address == LakeAddress("lake", Secret("LAKE"))
    found = locate(address, tmp_path, {"LAKE": WITH_PASSWORD})
    assert found == LakePlace(tmp_path / "lake", Database(WITH_PASSWORD))
    assert PASSWORD not in repr(found)


def test_a_secret_may_stand_in_a_file_that_a_variable_names(tmp_path: Path) -> None:
    (tmp_path / "address").write_text(WITH_PASSWORD + "\n")
    found = locate(LakeAddress("lake", Secret("LAKE")), tmp_path, {"LAKE_FILE": "address"})
    assert found.database == Database(WITH_PASSWORD)


@pytest.mark.parametrize("variables", [{}, {"LAKE": ""}, {"LAKE_FILE": "nowhere"}], ids=str)
def test_a_secret_without_a_value_is_named(tmp_path: Path, variables: dict[str, str]) -> None:
    with pytest.raises(NotFoundError) as caught:
        locate(LakeAddress("lake", Secret("LAKE")), tmp_path, variables)
    assert caught.value.kind == "no-such-secret"
    assert "environment variable LAKE" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f"lake: {{folder: lake, database: '{WITH_PASSWORD}'}}",
        f"lake: {{folder: lake, database: 'postgresql://db/data?password={PASSWORD}'}}",
        f"lake: {{folder: lake, database: ['{WITH_PASSWORD}']}}",
        f"lake: {{folder: lake, database: {{secret: '{WITH_PASSWORD}'}}}}",
        f"lake: {{folder: lake, database: {{secrt: '{WITH_PASSWORD}'}}}}",
        f"lake: {{folder: lake, database: 'host=db password={PASSWORD}'}}",
        f"lake: {{folder: lake, datbase: '{WITH_PASSWORD}'}}",
        f"lake: {{folder: lake, database: a, database: '{WITH_PASSWORD}'}}",
        f"lake: {WITH_PASSWORD}",
        f"lake: ['{WITH_PASSWORD}']",
    ],
)
def test_a_password_in_the_file_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_project(line)
    assert PASSWORD not in repr(caught.value) + str(caught.value) + str(caught.value.facts)
    assert "instep.yaml:1:" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        PASSWORD,
        f"mysql://ana:{PASSWORD}@db/data",
        f"postgresql://ana:half@{PASSWORD}@db/data",
        f"postgresql://ana:half/{PASSWORD}@db/data",
        f"postgresql://ana:5432/{PASSWORD}@db/data",
        f"postgresql://ana:{PASSWORD}%zz@db/data",
        f"postgresql://ana:half?{PASSWORD}@db/data",
        f"postgresql://ana:{PASSWORD} @db/data",
    ],
)
def test_a_secret_that_is_no_address_is_not_repeated(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidError) as caught:
        locate(LakeAddress("lake", Secret("LAKE")), tmp_path, {"LAKE": value})
    assert caught.value.kind == "bad-database-address"
    assert PASSWORD not in repr(caught.value) + str(caught.value) + str(caught.value.facts)


@pytest.mark.parametrize(
    "address",
    [
        ADDRESS,
        "postgres://db/data",
        "postgresql://",
        "postgresql:///data?host=/run/postgresql",
        "postgresql://ana:p%40ss:w0rd@[::1]:5432/data?sslmode=verify-full",
        "postgresql://one:5432,two:5432/data?target_session_attrs=primary",
    ],
)
def test_what_postgresql_documents_is_an_address(address: str) -> None:
    assert is_address(address)


def test_a_database_that_does_not_answer_is_told_without_the_password(tmp_path: Path) -> None:
    from instep.clock import system_clock
    from instep.history.repository import open_repository

    place = locate(
        LakeAddress("lake", Secret("LAKE")),
        tmp_path,
        {"LAKE": f"postgresql://ana:{PASSWORD}@127.0.0.1:1/data"},
    )
    with pytest.raises(InstepError) as caught:
        open_repository(place.root, system_clock, place.database)
    assert caught.value.kind == "database-unreachable"
    assert PASSWORD not in repr(caught.value) + str(caught.value) + str(caught.value.facts)
