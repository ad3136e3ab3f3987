"""What an ODCS v3.1 document may hold, key by key: its shape, and nothing of its meaning.

Every key that ODCS has is here. Those of the type `Descriptive` are accepted, and read by people.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str | datetime | date


Descriptive = object
"""The type of a key that is accepted and only read by people."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Custom(_Shape):
    property: str
    value: Scalar | list[Scalar] | None = None
    id: Descriptive = None
    description: Descriptive = None


class Description(_Shape):
    purpose: str = ""
    limitations: Descriptive = None
    usage: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815, the key's name in ODCS
    customProperties: Descriptive = None  # noqa: N815


class Options(_Shape):
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    exclusiveMinimum: Scalar | None = None  # noqa: N815
    exclusiveMaximum: Scalar | None = None  # noqa: N815
    minLength: int | None = Field(default=None, ge=0)  # noqa: N815
    maxLength: int | None = Field(default=None, ge=0)  # noqa: N815
    pattern: str | None = None
    timezone: bool | None = None
    defaultTimezone: str | None = None  # noqa: N815
    format: Scalar | None = None
    multipleOf: Scalar | None = None  # noqa: N815
    minItems: Scalar | None = None  # noqa: N815
    maxItems: Scalar | None = None  # noqa: N815
    uniqueItems: Scalar | None = None  # noqa: N815
    minProperties: Scalar | None = None  # noqa: N815
    maxProperties: Scalar | None = None  # noqa: N815
    required: list[str] | None = None


class Arguments(_Shape):
    properties: list[str] | None = None
    validValues: list[Scalar] | None = None  # noqa: N815
    pattern: str | None = None
    missingValues: list[Scalar | None] | None = None  # noqa: N815


class Quality(_Shape):
    metric: str | None = None
    type: Literal["library", "text", "sql", "custom"] = "library"
    arguments: Arguments | None = None
    validValues: list[Scalar] | None = None  # noqa: N815
    mustBe: int | float | None = None  # noqa: N815
    mustNotBe: int | float | None = None  # noqa: N815
    mustBeGreaterThan: int | float | None = None  # noqa: N815
    mustBeGreaterOrEqualTo: int | float | None = None  # noqa: N815
    mustBeLessThan: int | float | None = None  # noqa: N815
    mustBeLessOrEqualTo: int | float | None = None  # noqa: N815
    mustBeBetween: list[int | float] | None = None  # noqa: N815
    mustNotBeBetween: list[int | float] | None = None  # noqa: N815
    unit: Literal["rows", "percent"] = "rows"
    query: Descriptive = None
    engine: Descriptive = None
    implementation: Descriptive = None
    schedule: Descriptive = None
    scheduler: Descriptive = None
    severity: str | None = None
    id: Descriptive = None
    name: Descriptive = None
    description: Descriptive = None
    dimension: Descriptive = None
    businessImpact: Descriptive = None  # noqa: N815
    method: Descriptive = None
    tags: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815


class _Element(_Shape):
    id: Descriptive = None
    name: str
    physicalName: str | None = None  # noqa: N815
    physicalType: str | None = None  # noqa: N815
    description: str = ""
    businessName: Descriptive = None  # noqa: N815
    authoritativeDefinitions: Descriptive = None  # noqa: N815
    tags: Descriptive = None
    quality: list[Quality] = []
    relationships: Descriptive = None
    customProperties: list[Custom] = []  # noqa: N815


class Property(_Element):
    logicalType: Literal[  # noqa: N815
        "string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"
    ]
    logicalTypeOptions: Options = Options()  # noqa: N815
    required: bool = False
    primaryKey: bool = False  # noqa: N815
    primaryKeyPosition: int | None = None  # noqa: N815
    unique: bool = False
    partitioned: bool = False
    partitionKeyPosition: int | None = None  # noqa: N815
    items: Item | None = None
    properties: list[Property] | None = None
    examples: Descriptive = None
    classification: Descriptive = None
    criticalDataElement: Descriptive = None  # noqa: N815
    encryptedName: Descriptive = None  # noqa: N815
    transformSourceObjects: Descriptive = None  # noqa: N815
    transformLogic: Descriptive = None  # noqa: N815
    transformDescription: Descriptive = None  # noqa: N815


class Item(Property):
    """What an array holds; it needs no name."""

    name: str = "element"


class Object(_Element):
    properties: list[Property] = Field(min_length=1)
    logicalType: Literal["object"] = "object"  # noqa: N815
    dataGranularityDescription: Descriptive = None  # noqa: N815


class Server(_Shape):
    server: str
    type: str
    path: str | None = None
    format: Literal["csv", "parquet"] | None = None
    delimiter: str | None = None
    id: Descriptive = None
    description: Descriptive = None
    environment: Descriptive = None
    roles: Descriptive = None
    customProperties: list[Custom] = []  # noqa: N815


class Document(_Shape):
    apiVersion: Literal["v3.1.0"]  # noqa: N815
    kind: Literal["DataContract"]
    id: str
    version: str
    status: Literal["proposed", "draft", "active", "deprecated", "retired"]
    schema_: list[Object] = Field(alias="schema", min_length=1)
    name: str | None = None
    description: Description = Description()
    servers: list[Server] = []
    quality: Descriptive = None
    slaProperties: Descriptive = None  # noqa: N815
    tenant: Descriptive = None
    domain: Descriptive = None
    dataProduct: Descriptive = None  # noqa: N815
    tags: Descriptive = None
    authoritativeDefinitions: Descriptive = None  # noqa: N815
    support: Descriptive = None
    price: Descriptive = None
    team: Descriptive = None
    roles: Descriptive = None
    contractCreatedTs: Descriptive = None  # noqa: N815
    customProperties: list[Custom] = []  # noqa: N815
