"""A Spark session in a process of its own, and what makes one skip: nothing is fetched here.

Needs Java 17 and what `tests/fetch-spark` puts into `.spark`, or into the folder INSTEP_SPARK.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rest import SECONDS

HOME = Path(os.environ.get("INSTEP_SPARK", Path(__file__).parents[2] / ".spark"))
JARS = ("iceberg.jar", "iceberg-aws.jar")
"""Iceberg's runtime, and what it needs for files on S3."""

JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Java compiles for a session that is soon over: it takes half as much CPU as by default."""

_SESSION = Path(__file__).parent / "spark_session.py"


@dataclass(frozen=True, slots=True)
class Spark:
    """A session that answers SQL; its process ends with its input."""

    process: subprocess.Popen[str]

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Returns the rows of a statement; values are of any type."""
        told = self._told(text)
        assert "error" not in told, f"{text}\n{told.get('error')}"
        found: list[dict[str, Any]] = told["rows"]
        return found

    def error(self, text: str) -> str:
        """Returns what a statement fails with, empty where it does not."""
        return str(self._told(text).get("error", ""))

    def _told(self, text: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def require_spark() -> None:
    """Skips the test where something is missing, and says what."""
    for what, is_there in (
        ("Java", shutil.which("java") is not None),
        (f"Spark in {HOME}", (HOME / "venv" / "bin" / "python").exists()),
        *((f"{jar} in {HOME}", (HOME / jar).exists()) for jar in JARS),
    ):
        if not is_there:
            pytest.skip(f"{what} is missing: run tests/fetch-spark")


@contextmanager
def spark_session(place: Path, url: str, token: str | None, *warehouses: str) -> Iterator[Spark]:
    """Runs a session in the folder `place`; each warehouse at `url` is a catalog of its own.

    It takes ten seconds to begin. The environment is this process's, with its credentials.
    """
    outside = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    jars = ",".join(str(HOME / jar) for jar in JARS)
    process = subprocess.Popen(
        [HOME / "venv" / "bin" / "python", _SESSION, jars, url, token or "", *warehouses],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=place,
        env={**outside, "SPARK_LOCAL_IP": "127.0.0.1", "JDK_JAVA_OPTIONS": JVM},
    )
    try:
        running = Spark(process)
        assert "ready" in running.answer()
        yield running
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait(timeout=SECONDS)
        process.stdout.close()
