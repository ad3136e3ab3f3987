"""How other programs name the files of a lake, and what they need to reach them.

A file has one address here: a path, or `s3://bucket/key`. Other spellings of one that could be
read as another file, or as none, are refused rather than understood by halves.
"""

from __future__ import annotations

import os
from pathlib import Path

from instep.errors import InvalidError
from instep.history.places import on_s3


def plain_address(text: str) -> str:
    """Returns the address that another program gave of a folder or file, as Instep writes it."""
    if text.startswith("s3://"):
        return text.rstrip("/")
    plain = text.removeprefix("file:").rstrip("/")
    return "/" + plain.lstrip("/")


def name_below(folder: Path, address: str) -> str:
    """Returns an address that another writer gave, relative to `folder`, in which it must lie.

    Raises:
        InvalidError (kind "foreign-file").
    """
    plain = plain_address(address)
    # A name of an object is taken as it is, and `..` in it would lead out of this machine's copies.
    real = plain if on_s3(folder) else os.path.realpath(plain)
    name = real.removeprefix(f"{folder}/")
    if name == real or {"", ".", ".."} & set(name.split("/")):
        raise InvalidError(
            f"File {address} lies outside the table: expected a file in {folder}. "
            "Write the rows into the table instead of naming files elsewhere.",
            kind="foreign-file",
            path=address,
        )
    return name


def client_properties(root: Path) -> dict[str, str]:
    """Returns what an Iceberg client must know of where a lake's files are, but its credentials.

    Libraries have two words for the region. At Amazon it is told where the lake's address names it.
    """
    remote = on_s3(root)
    if remote is None:
        return {}
    endpoint, region = remote.bucket.endpoint, remote.bucket.region
    told = {}
    if endpoint is not None:
        told = {"s3.endpoint": endpoint, "s3.path-style-access": "true"}
        region = region or str(remote.bucket.client().meta.region_name)
    return {**told, "s3.region": region, "client.region": region} if region else told
