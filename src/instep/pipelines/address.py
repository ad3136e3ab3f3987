"""Where a lake is: its folder, and the database of its catalog. A password is never in the file.

A secret is named and looked up when the lake is opened: in the environment variable of that name,
or in the file that `NAME_FILE` names. Its value is in no record, message or `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.errors import InvalidError, NotFoundError
from instep.history.places import s3_root
from instep.history.store import Database

_ADDRESS = re.compile(
    r"""postgres(?:ql)?://
    (?:[\w.~%!$&'()*+,;=-]*(?P<password>:[\w.~%!$&'()*+,;=:-]*)?@)?  # user, password
    (?:[\w.%-]*|\[[0-9a-fA-F:.]+\])(?::\d+)?                         # host, port
    (?:,(?:[\w.%-]*|\[[0-9a-fA-F:.]+\])(?::\d+)?)*                   # further hosts
    (?:/[\w.~%!$&'()*+,;=-]*)?                                       # name of the database
    (?:\?(?P<options>[\w.~%!$&'()*+,;=:/-]*))?
    """,
    re.VERBOSE,
)
"""Strict, since libpq quotes the parts that it could not read, and one may be half a password."""

FORM = "postgresql://user@host:port/name"


@dataclass(frozen=True, slots=True)
class Secret:
    """The name of a value that stands outside of the project."""

    name: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a lake's files are on S3; without `endpoint` at Amazon."""

    address: str
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class LakeAddress:
    """What `lake:` says. Without a database the catalog is a SQLite file in the folder."""

    folder: str
    database: Secret | str | None = None
    schema: str = "instep"
    files: Bucket | None = None


@dataclass(frozen=True, slots=True)
class LakePlace:
    """What it takes to open a lake."""

    root: Path
    database: Database | None = None


def locate(
    address: LakeAddress, project: Path, variables: Mapping[str, str] = os.environ
) -> LakePlace:
    """Returns where the lake of the folder `project` is, with its secret looked up.

    Raises:
        InvalidError (kind "database-needed"): the files are on S3, the catalog is not on a server.
        NotFoundError (kind "no-such-secret").
        InvalidError (kind "bad-database-address"): the secret is no address of PostgreSQL.
    """
    root = (project / address.folder).resolve()
    if address.files is not None:
        if address.database is None:
            raise InvalidError(
                f"The lake's files are in {address.files.address}, and lake.database is not said: "
                "expected a PostgreSQL database, since a SQLite file here would be this machine's "
                "alone. Name one.",
                kind="database-needed",
            )
        root = s3_root(address.files.address, root, address.files.endpoint, address.files.region)
    match address.database:
        case None:
            return LakePlace(root)
        case Secret(name):
            url = revealed(Secret(name), project, variables)
            if not is_address(url):
                raise InvalidError(
                    f"The secret {name} is not the address of a PostgreSQL database: expected "
                    f"{FORM} with a password after the user, and every character of it but "
                    "letters, digits, dots and hyphens as % and two hexadecimal digits. "
                    "Correct it.",
                    kind="bad-database-address",
                    secret=name,
                )
        case str() as url:
            pass
    return LakePlace(root, Database(url, address.schema))


def is_address(text: str) -> bool:
    """Says whether `text` is an address of PostgreSQL that nothing could misread."""
    return _ADDRESS.fullmatch(text) is not None and not re.search("%(?![0-9a-fA-F]{2})", text)


def holds_password(text: str) -> bool:
    """Says whether an address of PostgreSQL holds a password, as such or among its options."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and (
        found["password"] is not None or "password" in (found["options"] or "").lower()
    )


def revealed(secret: Secret, project: Path, variables: Mapping[str, str] = os.environ) -> str:
    """Returns the value of a secret, which belongs in no record, message or `repr`.

    Raises:
        NotFoundError (kind "no-such-secret").
    """
    name = secret.name
    value = variables.get(name, "")
    file = variables.get(f"{name}_FILE", "")
    if not value and file:
        try:
            value = (project / file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            value = ""
    if not value:
        raise NotFoundError(
            f"The secret {name} has no value: expected it in the environment variable {name}, or "
            f"in the file that {name}_FILE names. Set one of them.",
            kind="no-such-secret",
            secret=name,
        )
    return value
