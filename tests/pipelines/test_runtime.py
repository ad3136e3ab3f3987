"""The runtime has one digest per set of packages, wherever they lie."""

from __future__ import annotations

from pathlib import Path

from instep.pipelines.runtime import (
    Package,
    Runtime,
    differences,
    load_runtime,
    parse_runtime,
    read_runtime,
)


def test_the_kept_answer_is_the_one_that_is_read(tmp_path: Path) -> None:
    first = load_runtime(tmp_path)
    assert first == read_runtime() == load_runtime(tmp_path)
    assert first.digest == parse_runtime(first.to_bytes()).digest
    assert "duckdb" in first.packages


def test_a_damaged_kept_answer_is_read_again(tmp_path: Path) -> None:
    load_runtime(tmp_path)
    next(tmp_path.iterdir()).write_text("[]")
    assert load_runtime(tmp_path) == read_runtime()


def test_what_differs_is_named_by_package() -> None:
    before = Runtime("CPython 3.11", "Linux", {"a": Package("1", "x"), "b": Package("1", "x")})
    after = Runtime("CPython 3.12", "Linux", {"a": Package("1", "y"), "c": Package("2", "x")})
    assert differences(before, after) == (
        "interpreter CPython 3.11 -> CPython 3.12",
        "a 1 -> 1 (other files)",
        "b 1 -> absent",
        "c absent -> 2",
    )
    assert differences(before, before) == ()
    assert before.digest != after.digest
