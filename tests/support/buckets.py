"""A server of the S3 protocol on loopback, moto's, in a thread; and lakes whose files are there."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instep.history.places import s3_root

KEYS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "not-checked",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What any client takes from the environment; the server checks no credentials."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket, and where its server is."""

    url: str
    name: str

    @property
    def address(self) -> str:
        return f"s3://{self.name}/lake"

    def root(self, folder: Path, url: str | None = None) -> Path:
        """Returns the root of a lake in the bucket, whose folder on this machine is `folder`."""
        return s3_root(self.address, folder, url or self.url, None)

    def project_line(self, postgres_url: str) -> str:
        """Returns what `instep.yaml` says of a lake with its files here, its catalog there."""
        database = postgres_url.replace("postgres:@", "postgres@")
        return (
            f"lake: {{folder: lake, files: '{self.address}', endpoint: '{self.url}', "
            f"database: '{database}', schema: {self.schema}}}"
        )

    @property
    def schema(self) -> str:
        return self.name.replace("-", "_")

    def client(self) -> Any:  # boto3 makes its clients at run time
        import boto3

        return boto3.client("s3", endpoint_url=self.url)

    def names(self) -> set[str]:
        """Returns the keys of everything in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {one["Key"] for page in pages for one in page.get("Contents", ())}


@contextmanager
def served() -> Iterator[str]:
    """Gives the address of a server that lives as long as the context."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        os.environ.update(KEYS)
        yield url
    finally:
        server.stop()


def make_bucket(url: str) -> Bucket:
    made = Bucket(url, f"lake-{uuid.uuid4().hex}")
    made.client().create_bucket(Bucket=made.name)
    return made
