"""`instep.yaml`: where the lake is; people, environments, policies, budgets and prices.

Only `lake` is read from disk by commands; the rest takes effect when it is the content of
`config/instep` in the lake. Every key is known here; an unknown one is an error with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from instep.canonical import JsonObject
from instep.clock import parse_duration
from instep.errors import InvalidError, NotFoundError
from instep.history import tree
from instep.history.commits import load_commit
from instep.history.refs import get_ref
from instep.history.repository import MAIN, Repository
from instep.history.retention import KEEP_DAYS
from instep.history.store import Transaction
from instep.pipelines.address import Bucket, LakeAddress, LakePlace, Secret, locate

if TYPE_CHECKING:
    from instep.pipelines.shapes import PersonShape, ProjectShape

FILE = "instep.yaml"
KEY = "config/instep"
TYPE = "instep.config.v1"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may act; what they are is told, not enforced. `token` proves who they are."""

    name: str
    role: str = ""
    email: str = ""
    token: Secret | None = None


@dataclass(frozen=True, slots=True)
class Approvals:
    """How many approvals, none of them the author's, each kind of change needs.

    An arrival that fits its contract needs `arrival` approvals: 0 means that it merges by itself.
    """

    arrival: int = 0
    project: int = 1
    pipeline: int = 1
    model: int = 1


@dataclass(frozen=True, slots=True)
class Prices:
    """What a processor hour and a stored gigabyte-month cost, in `currency`."""

    currency: str
    cpu_hour: float
    gb_month: float


@dataclass(frozen=True, slots=True)
class RunBudget:
    """What one run may be estimated to take; above it the run is refused before it starts."""

    time: timedelta | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """The meaning of one `instep.yaml`."""

    lake: LakeAddress
    people: Mapping[str, Person] = field(default_factory=dict)
    environments: tuple[str, ...] = ()
    approvals: Approvals = Approvals()
    run_budget: RunBudget = RunBudget()
    prices: Prices | None = None
    keep_days: int = KEEP_DAYS
    """For how many days at work garbage collection lets be what nothing names."""


def parse_project(text: str, path: str = FILE) -> ProjectConfig:
    """Returns the configuration that `text` describes.

    Raises:
        InvalidError (kinds "bad-yaml", "unknown-key", "bad-document", "bad-duration").
    """
    from instep.documents import read_document
    from instep.pipelines.shapes import ProjectShape

    shape = read_document(text, path, ProjectShape)
    return ProjectConfig(
        lake=_lake(shape),
        people=_people(shape),
        environments=tuple(shape.environments),
        approvals=_approvals(shape),
        run_budget=_run_budget(shape),
        prices=_prices(shape),
        keep_days=shape.policies.keep.nominal.days,
    )


def load_project(folder: Path) -> ProjectConfig:
    """Returns the configuration in `folder`.

    Raises:
        NotFoundError (kind "no-project"): there is no `instep.yaml`.
        InvalidError: as `parse_project`.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError(
            f"Folder {folder} has no {FILE}: expected a project. Run instep init, or name the "
            "project with --project.",
            kind="no-project",
        ) from None
    except UnicodeDecodeError:
        raise InvalidError(
            f"{FILE} is not UTF-8: expected a text file. Save it as UTF-8.", kind="bad-yaml"
        ) from None
    return parse_project(text)


def find_lake(folder: Path) -> LakePlace:
    """Returns where the lake of the project in `folder` is, and reads nothing else of it.

    A plain line `lake: path` is read without a YAML library, because every command begins here.

    Raises:
        NotFoundError (kind "no-project").
        NotFoundError, InvalidError: as `address.locate`.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return locate(load_project(folder).lake, folder)
    plain: list[str] = re.findall(r"^lake:[ \t]+([\w./~-]+)[ \t]*(?:#.*)?$", text, re.MULTILINE)
    address = LakeAddress(plain[0]) if len(plain) == 1 else parse_project(text).lake
    return locate(address, folder)


def lake_config(repo: Repository, commit: str) -> ProjectConfig | None:
    """Returns the configuration that a commit holds, or None where none was merged yet."""
    return _parse_kept(repo, repo.find(commit, KEY))


def refuse_environment_name(repo: Repository, tx: Transaction, name: str) -> None:
    """Holds that a new branch or tag does not take the name of an environment that main declares.

    Raises:
        InvalidError (kind "reserved-ref-name").
    """
    main = load_commit(tx, get_ref(tx, MAIN).commit)
    config = _parse_kept(repo, tree.find(repo.nodes, main.tree, KEY))
    if config is not None and name in config.environments:
        raise InvalidError(
            f'"{name}" is declared as an environment in {FILE}: expected another name, because '
            "only a release makes an environment. Choose another.",
            kind="reserved-ref-name",
            ref=name,
        )


def config_content(blob: str) -> JsonObject:
    """Returns the content of `config/instep` for the digest of its text."""
    return {"type": TYPE, "blob": blob}


def _lake(shape: ProjectShape) -> LakeAddress:
    match shape.lake:
        case str() as folder:
            return LakeAddress(folder)
        case given:
            database = given.database
            return LakeAddress(
                given.folder,
                database
                if database is None or isinstance(database, str)
                else Secret(database.secret),
                given.schema_,
                Bucket(given.files, given.endpoint, given.region) if given.files else None,
            )


def _parse_kept(repo: Repository, content: JsonObject | None) -> ProjectConfig | None:
    return parse_project(repo.objects.text(str(content["blob"]))) if content is not None else None


def _people(shape: ProjectShape) -> dict[str, Person]:
    match shape.people:
        case list() as names:
            return {name: Person(name) for name in names}
        case people:
            return {
                name: _person(name, one) if one else Person(name) for name, one in people.items()
            }


def _person(name: str, shape: PersonShape) -> Person:
    token = Secret(shape.token.secret) if shape.token else None
    return Person(name, shape.role or "", shape.email or "", token)


def _approvals(shape: ProjectShape) -> Approvals:
    given = shape.policies.approvals
    return Approvals(given.arrival, given.project, given.pipeline, given.model)


def _run_budget(shape: ProjectShape) -> RunBudget:
    given = shape.budgets.run
    return RunBudget(
        time=parse_duration(given.time).nominal if given.time is not None else None,
        memory_bytes=round(given.memory_gb * 2**30) if given.memory_gb is not None else None,
    )


def _prices(shape: ProjectShape) -> Prices | None:
    if shape.prices is None:
        return None
    return Prices(shape.prices.currency, shape.prices.cpu_hour, shape.prices.gb_month)
