"""What `instep.yaml` and `pipelines/*.yaml` look like: every key, its kind, and nothing else.

Shapes are pydantic because text from outside becomes a record here, once. Their meaning is in
`project.py` and `config.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from instep.clock import Duration, parse_duration, parse_instant
from instep.errors import InvalidError
from instep.history.retention import KEEP_DAYS
from instep.pipelines.address import FORM, holds_password, is_address

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_.=-]+)*/?")
_ENDPOINT = re.compile(r"https?://[\w.-]+(?::\d+)?/?")


def _instant(value: object) -> datetime:
    if not isinstance(value, str | date):
        raise ValueError(
            f"{value!r} is not an instant: expected a date such as 2013-09-01, or ISO 8601. "
            "Write it so."
        )
    try:
        return parse_instant(value)
    except InvalidError as error:
        raise ValueError(error.message) from None


def _duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    try:
        return parse_duration(str(value))
    except InvalidError as error:
        raise ValueError(error.message) from None


def _kind_of_step(value: object) -> str | None:
    """Guesses from other keys where the deciding one is misspelt, so that the fault names it."""
    if not isinstance(value, Mapping):
        return None
    for kind in ("sql", "train"):
        if kind in value:
            return f"{kind} step"
    return "train step" if "model" in value or "reads" in value else "sql step"


def _folder(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("it is no folder: expected a path. Write one.")
    if "://" in value:
        raise ValueError(
            "it is an address: expected a folder. Write lake: {folder: lake, database: ...}."
        )
    return value


def _secret(value: object) -> object:
    """Refuses by itself what names no secret, since other refusals quote what they refuse."""
    if (
        isinstance(value, Mapping)
        and set(value) == {"secret"}
        and _VARIABLE.fullmatch(str(value["secret"]))
    ):
        return value
    raise ValueError(
        "it names no secret: expected {secret: NAME}, with the name of an environment "
        "variable. Write it so."
    )


def _files(value: object) -> object:
    if value is not None and not _BUCKET.fullmatch(str(value)):
        raise ValueError(
            "it is no place in a bucket: expected s3://bucket/name, where the name may be left "
            "out. Write one."
        )
    return value


def _endpoint(value: object) -> object:
    if value is not None and not _ENDPOINT.fullmatch(str(value)):
        raise ValueError(
            "it is no address of a server: expected https://host:port, without user, password or "
            "options. Write one."
        )
    return value


def _database(value: object) -> object:
    """Refuses by itself what is no mapping, for the same reason."""
    if isinstance(value, Mapping):
        return _secret(value)
    if not isinstance(value, str) or not is_address(value):
        raise ValueError(
            f"it is no address of PostgreSQL: expected {FORM}, or {{secret: NAME}} where the "
            "address holds a password. Write one of them."
        )
    if holds_password(value):
        raise ValueError(
            "it holds a password: expected none in a file. Write {secret: NAME}, and put the "
            "whole address into the environment variable NAME."
        )
    return value


def _kind_of_lake(value: object) -> str:
    return "mapping" if isinstance(value, Mapping) else "lake"


def _kind_of_people(value: object) -> str:
    """Decides by itself, since what is no list would be quoted, and may hold a token."""
    return "people" if isinstance(value, Mapping) else "names"


Instant = Annotated[datetime, BeforeValidator(_instant)]
Span = Annotated[Duration, BeforeValidator(_duration)]
Folder = Annotated[str, BeforeValidator(_folder)]
Name = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")]


class Shape(BaseModel):
    """Refuses unknown keys; durations are values."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class SecretShape(Shape):
    secret: str


class PersonShape(Shape):
    role: str | None = None
    email: str | None = None
    token: Annotated[SecretShape | None, BeforeValidator(_secret)] = None


class EnvironmentShape(Shape):
    why: str | None = None


class ApprovalsShape(Shape):
    arrival: int = Field(default=0, ge=0)
    project: int = Field(default=1, ge=0)
    pipeline: int = Field(default=1, ge=0)
    model: int = Field(default=1, ge=0)


class PoliciesShape(Shape):
    approvals: ApprovalsShape = ApprovalsShape()
    keep: Span = Duration(span=timedelta(days=KEEP_DAYS))


class RunBudgetShape(Shape):
    time: str | None = None
    memory_gb: float | None = Field(default=None, gt=0)


class BudgetsShape(Shape):
    run: RunBudgetShape = RunBudgetShape()


class PricesShape(Shape):
    currency: str
    cpu_hour: float = Field(ge=0)
    gb_month: float = Field(ge=0)


class LakeShape(Shape):
    folder: Folder
    files: Annotated[str | None, BeforeValidator(_files)] = None
    endpoint: Annotated[str | None, BeforeValidator(_endpoint)] = None
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    database: Annotated[str | SecretShape | None, BeforeValidator(_database)] = None
    schema_: str = Field(default="instep", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")


class ProjectShape(Shape):
    lake: Annotated[
        Annotated[Folder, Tag("lake")] | Annotated[LakeShape, Tag("mapping")],
        Discriminator(_kind_of_lake),
    ]
    people: Annotated[
        Annotated[dict[str, PersonShape | None], Tag("people")]
        | Annotated[list[str], Tag("names")],
        Discriminator(_kind_of_people),
    ] = {}
    environments: dict[str, EnvironmentShape | None] = {}
    policies: PoliciesShape = PoliciesShape()
    budgets: BudgetsShape = BudgetsShape()
    prices: PricesShape | None = None


class SliceShape(Shape):
    from_: Instant = Field(alias="from")
    to: Instant


class TableSliceShape(Shape):
    time: str
    lookback: Span = Duration()


class AcceptableErrorShape(Shape):
    metric: str
    at: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    why: str | None = None


class SqlStepShape(Shape):
    step: Name
    why: str | None = None
    sql: str
    writes: Name
    every: Span | None = None
    time: str | None = None


class KnownAfterShape(Shape):
    at_most: Span
    column: str


class WindowsShape(Shape):
    train: Span
    test: Span
    step: Span | None = None


class CandidateShape(Shape):
    name: Name
    params: dict[str, int | float | str | bool | None] = {}


class ChooseShape(Shape):
    metric: str
    by: Literal["stability"] = "stability"


class TrainStepShape(Shape):
    step: Name
    why: str | None = None
    train: str
    reads: Name
    model: Name
    target: str
    key: list[str] = Field(min_length=1)
    time: str
    known_after: KnownAfterShape
    features: list[str] = Field(min_length=1)
    windows: WindowsShape
    candidates: list[CandidateShape] = Field(min_length=1)
    choose: ChooseShape
    intended_for: Span
    outside: Literal["answer", "refuse"] = "answer"
    outside_period: Literal["answer", "refuse"] = "answer"
    seed: int = Field(default=0, ge=0)


StepShape = Annotated[
    Annotated[SqlStepShape, Tag("sql step")] | Annotated[TrainStepShape, Tag("train step")],
    Discriminator(
        _kind_of_step,
        custom_error_type="kind_of_step",
        custom_error_message="A step is a mapping with one of the keys sql and train",
    ),
]


class PipelineShape(Shape):
    pipeline: Name
    question: str | None = None
    decision: str | None = None
    acceptable_error: AcceptableErrorShape | None = None
    owner: str | None = None
    keep: Span | None = None
    slice: SliceShape
    slices: dict[str, str | TableSliceShape] = {}
    steps: list[StepShape] = Field(min_length=1)
    data: list[str] = []
