"""Erased bytes are gone through all history; who and why stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import garbage
import pytest
from commands import KILLED, run_script
from databases import on_both
from garbage import gc

from instep import faults
from instep.canonical import JsonObject
from instep.changes.revert import undo_on_branch
from instep.cli.backup import back_up
from instep.cli.wholeness import check, examine
from instep.errors import InternalError, InvalidError, NotFoundError, RefusedError
from instep.history.erasure import Erasure, erase, erased_digests
from instep.history.objects import Objects
from instep.history.repository import Repository, open_repository
from instep.history.store import Database
from instep.lake import retention_of


def erased(repo: Repository, text: str, why: str = "asked for") -> tuple[Erasure, ...]:
    return erase(repo, text, "ben", why, retention_of(repo).reach.objects)


def in_history_only(repo: Repository) -> str:
    content = garbage.contract(repo, "terms of old")
    garbage.commit(repo, "main", contract__t=content)
    garbage.commit(repo, "main", contract__t=garbage.contract(repo, "terms now"))
    return content["blob"]


@on_both
def test_erased_bytes_are_gone_and_the_record_stays(repo: Repository) -> None:
    digest = in_history_only(repo)
    (record,) = erased(repo, digest[:12])
    assert (record.digest, record.actor, record.why) == (digest, "ben", "asked for")
    assert record.size_bytes == len("terms of old")
    with repo.store.reading() as tx:
        assert erased_digests(tx) == {digest}
    assert not repo.objects.path(digest).exists()
    for read in (repo.objects.get, repo.objects.existing):
        with pytest.raises(NotFoundError, match=r"by ben .* asked for") as caught:
            read(digest)
        assert caught.value.kind == "erased"


def test_erased_bytes_are_not_stored_again(repo: Repository, tmp_path: Path) -> None:
    digest = in_history_only(repo)
    erased(repo, digest)
    (tmp_path / "file").write_text("terms of old")
    with pytest.raises(RefusedError) as caught:
        repo.objects.put(b"terms of old")
    assert caught.value.kind == "erased"
    with pytest.raises(RefusedError):
        repo.objects.put_file(tmp_path / "file")
    assert not repo.objects.has(digest)


def test_erasing_again_changes_nothing(repo: Repository) -> None:
    digest = in_history_only(repo)
    first = erased(repo, digest)
    assert erased(repo, digest, "another reason") == first


def test_a_collection_keeps_the_note_of_what_was_erased(repo: Repository) -> None:
    digest = in_history_only(repo)
    erased(repo, digest)
    for _ in range(3):
        gc(repo)
    with pytest.raises(NotFoundError) as caught:
        repo.objects.get(digest)
    assert caught.value.kind == "erased"


def test_what_a_ref_needs_now_is_not_erased(repo: Repository) -> None:
    content = garbage.contract(repo, "in force")
    garbage.commit(repo, "main", contract__t=content)
    for text in (content["blob"], "contract/t"):
        with pytest.raises(RefusedError, match=r"contract/t of main") as caught:
            erased(repo, text)
        assert caught.value.kind == "still-live"
    assert repo.objects.get(content["blob"]) == b"in force"


@on_both
def test_what_a_ref_takes_hold_of_meanwhile_is_not_erased(
    repo: Repository, database: Database | None
) -> None:
    digest = in_history_only(repo)
    other = open_repository(repo.root, repo.clock, database)

    def meanwhile(place: str) -> None:
        if place == "transaction.begin.before":
            faults.watch(None)
            garbage.commit(other, "main", contract__u=garbage.contract(other, "terms of old"))

    faults.watch(meanwhile)
    try:
        with pytest.raises(RefusedError, match=r"contract/u of main"):
            erased(repo, digest)
    finally:
        faults.watch(None)
        other.store.close()
    assert repo.objects.get(digest) == b"terms of old"


def test_what_is_not_there_is_not_erased(repo: Repository) -> None:
    with pytest.raises(NotFoundError) as missing:
        erased(repo, "0123456789abcdef")
    assert missing.value.kind == "no-such-object"
    with pytest.raises(NotFoundError) as unknown:
        erased(repo, "contract/none")
    assert unknown.value.kind == "no-such-key"


def test_a_table_is_not_an_object(repo: Repository) -> None:
    garbage.commit(repo, "main", table__t=garbage.new_table(repo).to_content())
    with pytest.raises(InvalidError) as caught:
        erased(repo, "table/t")
    assert caught.value.kind == "not-an-object"


def test_a_digest_that_several_begin_with_is_not_erased(repo: Repository) -> None:
    for end in "01":
        path = repo.objects.path("ab" * 31 + "c" + end)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(end)
    with pytest.raises(InvalidError) as caught:
        erased(repo, "ab" * 8)
    assert caught.value.kind == "ambiguous-object"


ERASE = """
import sys
from pathlib import Path
from instep.clock import system_clock
from instep.history.erasure import erase
from instep.history.repository import open_repository
repo = open_repository(Path(sys.argv[1]), system_clock)
erase(repo, sys.argv[2], "ben", "asked for", lambda content: ())
"""


@pytest.mark.parametrize(
    ("place", "is_gone"),
    [
        ("transaction.commit.before", False),
        ("transaction.commit.after", False),
        ("erase.note.before", False),
        ("file.rename.before", False),
        ("erase.bytes.before", True),
        ("erase.bytes.after", True),
    ],
)
def test_a_killed_erasure_is_carried_out_by_the_next(
    repo: Repository, place: str, is_gone: bool
) -> None:
    digest = in_history_only(repo)
    words = (ERASE, str(repo.root), digest)
    assert run_script(*words, fault=place).code == KILLED
    assert repo.objects.has(digest) == (not is_gone)
    assert run_script(*words).code == 0
    assert not repo.objects.path(digest).exists()
    with repo.store.reading() as tx:
        assert erased_digests(tx) == {digest}


@on_both
def test_a_content_whose_object_was_erased_is_not_published_again(repo: Repository) -> None:
    garbage.branch(repo, "try")
    old = garbage.contract(repo, "terms of old")
    garbage.commit(repo, "try", contract__t=old)
    now = garbage.commit(repo, "try", contract__t=garbage.contract(repo, "terms now"))
    erased(repo, old["blob"])
    model: JsonObject = {"type": "instep.model.v1", "files": {"MLmodel": old["blob"]}}
    acts: list[Callable[[], object]] = [
        lambda: undo_on_branch(repo, "try", now, (), author="ana", why=""),
        lambda: garbage.commit(repo, "try", contract__u=old),
        lambda: garbage.commit(repo, "try", model__m=model),
    ]
    for act in acts:
        with pytest.raises(RefusedError, match=r"by ben .*asked for") as caught:
            act()
        assert (caught.value.kind, repo.resolve("try")) == ("erased", now)


def left_by_a_killed_writer(repo: Repository, digest: str, data: bytes) -> None:
    """Erases a blob while somebody stores it again, who dies before looking at the note."""

    class KilledError(Exception):
        pass

    def watcher(place: str) -> None:
        if place == "file.write.before":
            faults.watch(None)
            erased(repo, digest)
            faults.watch(watcher)
        elif place == "file.write.after":
            raise KilledError

    faults.watch(watcher)
    # Without the database nobody knows which copies are condemned: another is made.
    with pytest.raises(KilledError):
        Objects(repo.objects.folder).put(data)
    faults.watch(None)


@pytest.mark.parametrize(("database", "root"), [("postgres", "s3")], indirect=True)
def test_bytes_that_a_killed_writer_left_beside_a_note_are_told_and_go(
    repo: Repository, tmp_path: Path
) -> None:
    digest = in_history_only(repo)
    left_by_a_killed_writer(repo, digest, b"terms of old")
    (left,) = repo.objects.files(digest)
    assert left.read_bytes() == b"terms of old", "nobody serves it, but it is there"
    assert [one.kind for one in examine(repo, Counter())] == ["erased-bytes"]
    back_up(repo, tmp_path / "backup")
    assert not any(b"terms of old" in path.read_bytes() for path in files_in(tmp_path / "backup"))
    for _ in range(2):
        gc(repo)
    assert repo.objects.files(digest) == ()
    assert repo.objects.note(digest).exists()
    check(repo)


def test_bytes_of_an_erasure_that_was_cut_short_are_told_and_go(repo: Repository) -> None:
    digest = in_history_only(repo)
    erased(repo, digest)
    repo.objects.path(digest).write_bytes(b"terms of old")
    (told,) = examine(repo, Counter())
    assert told.kind == "erased-bytes"
    assert f"instep erase {digest}" in told.message
    with pytest.raises(InternalError) as caught:
        check(repo)
    assert caught.value.kind == "erased-bytes"
    assert "backup" not in caught.value.message
    for _ in range(2):
        gc(repo)
    assert not repo.objects.path(digest).exists()
    check(repo)


def files_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
