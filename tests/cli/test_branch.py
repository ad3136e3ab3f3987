"""Branches, tags and the log at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import cli
from instep.errors import InstepError

CONFIG = "lake: lake\npeople: [ana, ben]\nenvironments: {prod: {}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an empty lake; ana acts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTEP_ACTOR", "ana")
    (tmp_path / "instep.yaml").write_text(CONFIG)
    cli.main(["init"], standalone_mode=False)
    return tmp_path


def instep(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    cli.main(list(words), standalone_mode=False)
    return capsys.readouterr().out


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:  # the shape is the command's
    return json.loads(instep(capsys, *words, "--json"))


def kind_of(*words: str) -> str:
    with pytest.raises(InstepError) as caught:
        cli.main(list(words), standalone_mode=False)
    return caught.value.kind


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_name_is_made_renamed_protected_and_deleted(
    project: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert "Made" in instep(capsys, kind, "make", "one", "--at", "main", "--why", "a try")
    instep(capsys, kind, "rename", "one", "two", "--as", "ben")
    (two,) = [ref for ref in asked(capsys, kind, "list") if ref["name"] != "main"]
    assert (two["name"], two["owner"], two["protected"]) == ("two", "ana", False)
    instep(capsys, kind, "protect", "two")
    assert kind_of(kind, "delete", "two") == "protected-branch"
    assert "protected" in instep(capsys, kind)
    instep(capsys, kind, "protect", "two", "--off")
    assert 'Its history stays: "instep log two"' in instep(capsys, kind, "delete", "two")
    moves = asked(capsys, "log", "two")["operations"]
    assert [move["kind"] for move in moves][:3] == ["delete", "unprotect", "protect"]
    assert "renamed to two" in instep(capsys, "log", "one")
    assert "gone" in instep(capsys, "log", "one")


def test_a_list_without_tags_says_how_to_make_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "instep tag make" in instep(capsys, "tag")


def test_a_branch_is_no_tag(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instep(capsys, "branch", "make", "try")
    assert kind_of("tag", "delete", "try") == "wrong-ref-kind"


def test_a_log_is_filtered_and_says_when_there_is_more(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instep(capsys, "propose")
    instep(capsys, "approve", "1", "--as", "ben")
    instep(capsys, "merge", "1", "--as", "ben")
    log = asked(capsys, "log", "main", "--limit", "1")
    assert log["has_more"] is True
    assert [move["kind"] for move in log["operations"]] == ["merge"]
    assert "… and more" in instep(capsys, "log", "main", "--limit", "1")
    by_ben = asked(capsys, "log", "--by", "ben", "--key", "config/instep")["operations"]
    assert [move["actor"] for move in by_ben] == ["ben"]
    assert "nothing that was asked for" in instep(capsys, "log", "--since", "2100-01-01")
    assert "nothing that was asked for" in instep(capsys, "log", "--until", "2000-01-01")
    head = log["operations"][0]["after"]
    assert "An empty lake" in instep(capsys, "log", head[:12])


@pytest.mark.parametrize("how", ["change", "number", "commit", "ref", "instant"])
def test_a_commit_is_named_in_any_way_where_something_is_undone(
    project: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    instep(capsys, "propose")
    instep(capsys, "approve", "1", "--as", "ben")
    instep(capsys, "merge", "1")
    (move, *_) = asked(capsys, "log", "main")["operations"]
    words = {
        "change": ["change", "1"],
        "number": ["1"],
        "commit": [move["after"][:10]],
        "ref": ["main"],
        "instant": [f"main@{move['at']}"],
    }[how]
    undone = asked(capsys, "undo", *words)
    assert undone["undoes"] == move["after"]
    assert (undone["change"], undone["keys"]) == (2, ["config/instep"])
    assert "Updated change 2" in instep(capsys, "undo", *words, "--why", "once more")


def test_what_cannot_be_undone_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instep(capsys, "propose")
    assert kind_of("undo", "change", "1") == "nothing-to-undo"
    first = asked(capsys, "log", "main")["operations"][-1]["after"]
    assert kind_of("undo", first) == "nothing-to-undo"
    assert kind_of("undo", first, "--on", "nowhere") == "no-such-ref"
    instep(capsys, "tag", "make", "v1")
    assert kind_of("undo", first, "--on", "v1") == "wrong-ref-kind"
