"""What a store promises, whatever the database: all or nothing, one writer, three outcomes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from databases import on_both
from wire import BEGIN, COMMIT, Wire

from instep.clock import system_clock
from instep.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
)
from instep.history import sqlite
from instep.history.commits import load_commit, make_commit, save_commit
from instep.history.dump import dump_lines, load_lines
from instep.history.edits import Edit, publish
from instep.history.postgres import PostgresStore
from instep.history.refs import RefKind, create_ref
from instep.history.repository import CATALOG, Repository, create_repository, open_repository
from instep.history.sqlite import SqliteStore, create_sqlite
from instep.history.store import FORMAT_VERSION, Database, Fill, Store, Transaction
from instep.history.tips import move_ref

_FORMAT = "select value from lake where name = 'format'"


def put(repo: Repository, key: str, number: int) -> str:
    with repo.store.transaction() as tx:
        edit = Edit(repo.resolve("main"), {key: {"n": number}}, "ana", "m", "test")
        return publish(tx, repo, "main", edit).id


def make_older(tx: Transaction, database: Database | None) -> None:
    """Makes of a lake one of the format before the table of what was decided."""
    tx.execute("drop table replacements")
    if database is None:
        tx.execute("pragma user_version = 1")
    else:
        tx.execute("update lake set value = '1' where name = 'format'")


def format_told(tx: Transaction, database: Database | None) -> int:
    """Returns the format by which an older Instep knows that the lake is not for it."""
    asked = "pragma user_version" if database is None else _FORMAT
    [(found,)] = tx.rows(asked)
    return int(found)


@on_both
def test_what_a_transaction_wrote_is_gone_when_it_raised(repo: Repository) -> None:
    with pytest.raises(ZeroDivisionError), repo.store.transaction() as tx:
        tx.execute("insert into lake (name, value) values (?, ?)", ("a", "100 % sure?"))
        assert tx.row("select value from lake where name = 'a'") == ("100 % sure?",)
        raise ZeroDivisionError
    with repo.store.reading() as tx:
        assert tx.rows("select value from lake where name = 'a'") == []


@on_both
def test_a_reader_keeps_the_state_it_began_with(repo: Repository) -> None:
    before = repo.resolve("main")
    with repo.store.reading() as tx:
        assert load_commit(tx, repo.resolve("main")).id == before
        writer = threading.Thread(target=put, args=(repo, "table/a", 1))
        writer.start()
        writer.join()
        assert repo.resolve("main") == before
    assert repo.resolve("main") != before


@on_both
def test_writers_of_one_ref_lose_no_update(repo: Repository) -> None:
    def work(name: int) -> None:
        for number in range(15):
            with repo.store.transaction("main") as tx:
                head = repo.resolve("main")
                edit = Edit(head, {f"table/t{name}_{number}": {"n": 1}}, "ana", "m", "test")
                publish(tx, repo, "main", edit)
        repo.store.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(repo.entries(repo.resolve("main"), "table")) == 60


def test_a_message_lists_the_first_of_many_names(repo: Repository) -> None:
    base = repo.resolve("main")
    edit = Edit(base, {f"table/t{number:03}": {"n": 1} for number in range(25)}, "ana", "m", "test")
    with repo.store.transaction("main") as tx:
        head = publish(tx, repo, "main", edit).id
    with pytest.raises(NotFoundError, match=r"it has .*table/t019 and 5 more\. "):
        repo.content(head, "table/none")
    other = replace(edit, changes={key: {"n": 2} for key in edit.changes})
    with (
        pytest.raises(ConflictError, match=r" and 5 more: ") as moved,
        repo.store.transaction("main") as tx,
    ):
        publish(tx, repo, "main", other)
    assert moved.value.facts["keys"] == tuple(edit.changes)


@on_both
def test_what_is_not_there_and_what_moved_is_named_by_kind(repo: Repository) -> None:
    head = put(repo, "table/a", 1)
    with pytest.raises(NotFoundError) as caught:
        repo.content(head, "table/b")
    assert caught.value.kind == "no-such-key"
    with pytest.raises(NotFoundError) as caught:
        repo.commit("0" * 64)
    assert caught.value.kind == "no-such-commit"
    orphan = make_commit("tree", ("0" * 64,), "ana", repo.clock(), "m", "test")
    with pytest.raises(NotFoundError, match="A parent"), repo.store.transaction() as tx:
        save_commit(tx, orphan)
    with pytest.raises(ConflictError) as moved, repo.store.transaction() as tx:
        move_ref(
            tx, "main", expected="0" * 64, commit=head, actor="ana", at=repo.clock(),
            kind="test", why="",
        )  # fmt: skip
    assert moved.value.kind == "ref-moved"
    assert repo.resolve("main") == head


@on_both
def test_a_beginning_that_several_commits_share_is_ambiguous(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        for last in "01":
            tx.execute(
                "insert into commits (id, tree, parents, generation, author, at, message, origin) "
                "values (?, 't', '[]', 1, 'ana', 0, 'm', 'test')",
                ("ab" * 31 + "a" + last,),
            )
    with pytest.raises(InvalidError) as caught:
        repo.resolve("ab" * 5)
    assert caught.value.kind == "ambiguous-commit"


@on_both
def test_a_second_lake_in_one_place_is_refused(repo: Repository, database: Database | None) -> None:
    with pytest.raises(ConflictError) as caught:
        create_repository(repo.root, system_clock, "ben", database)
    assert caught.value.kind == "lake-exists"
    assert open_repository(repo.root, system_clock, database).resolve("main")


@on_both
def test_a_lake_of_another_format_is_refused(repo: Repository, database: Database | None) -> None:
    with repo.store.transaction() as tx:
        if database is None:
            tx.execute("pragma user_version = 99")
        else:
            tx.execute("update lake set value = '99' where name = 'format'")
    with pytest.raises(UnavailableError) as caught:
        open_repository(repo.root, system_clock, database)
    assert caught.value.kind == "newer-lake"


@on_both
def test_a_lake_of_an_older_format_becomes_one_of_this_when_it_is_opened(
    repo: Repository, database: Database | None
) -> None:
    with repo.store.transaction() as tx:
        make_older(tx, database)
    for _ in range(2):
        again = open_repository(repo.root, system_clock, database)
        with again.store.reading() as tx:
            assert tx.rows("select * from replacements") == []
            assert format_told(tx, database) == FORMAT_VERSION
            assert list(dump_lines(tx))
        again.store.close()


@on_both
def test_a_writer_that_waits_too_long_is_told_who_is_in_the_way(
    repo: Repository, database: Database | None
) -> None:
    failed: list[UnavailableError] = []

    def second() -> None:
        store: Store = (
            SqliteStore(repo.root / CATALOG, lock_wait_s=0.05)
            if database is None
            else PostgresStore(database, lock_wait_s=0.05)
        )
        try:
            with store.transaction():
                pass
        except UnavailableError as error:
            failed.append(error)
        store.close()

    with repo.store.transaction():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert [error.kind for error in failed] == ["lake-busy"]


def test_a_full_disk_changes_nothing_and_says_so(repo: Repository) -> None:
    before = put(repo, "table/a", 1)
    with repo.store.reading() as tx:
        pages = tx.row("pragma page_count")
    assert pages is not None
    with pytest.raises(UnavailableError) as caught, repo.store.transaction() as tx:
        tx.execute(f"pragma max_page_count = {pages[0]}")
        for number in range(1000):
            tx.execute("insert into lake (name, value) values (?, ?)", (f"n{number}", "x" * 1000))
    assert caught.value.kind == "disk-failed"
    assert repo.resolve("main") == before


def test_a_disk_that_fails_at_a_commit_leaves_its_outcome_unknown(repo: Repository) -> None:
    put(repo, "table/a", 1)
    log = (repo.root / CATALOG).with_name(f"{CATALOG}-wal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutcomeUnknownError) as caught, repo.store.transaction() as tx:
            tx.execute("insert into lake (name, value) values ('a', ?)", ("x" * 1_000,))
            resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.kind == "commit-unknown"
    put(repo, "table/a", 2)


def test_a_full_disk_of_the_database_server_says_so(far: Repository) -> None:
    full = "do $$ begin raise exception 'no space left' using errcode = 'disk_full'; end $$"
    for begin in (far.store.transaction, far.store.reading):
        with pytest.raises(UnavailableError, match="no space left") as caught, begin() as tx:
            tx.execute(full)
        assert caught.value.kind == "disk-failed"
    put(far, "table/a", 1)


def test_a_database_that_may_only_be_read_says_so(repo: Repository) -> None:
    before = repo.resolve("main")
    with pytest.raises(UnavailableError) as caught, repo.store.transaction() as tx:
        tx.execute("pragma query_only = 1")
        tx.execute("insert into lake (name, value) values ('a', 'b')")
    assert caught.value.kind == "read-only-lake"
    repo.store.close()
    assert repo.resolve("main") == before


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No network file system can be mounted here; which one a folder is on is said instead.
    monkeypatch.setattr(sqlite, "_file_system", lambda folder: "nfs4")
    with pytest.raises(InvalidError) as caught:
        create_repository(tmp_path / "lake", system_clock, "ana")
    assert caught.value.kind == "network-file-system"
    assert list((tmp_path / "lake").iterdir()) == []


@pytest.fixture
def wire(postgres_url: str) -> Iterator[Wire]:
    folder = postgres_url.partition("host=")[2]
    made = Wire(f"{folder}/.s.PGSQL.5432")
    yield made
    made.close()


@pytest.fixture
def far(tmp_path: Path, wire: Wire) -> Repository:
    """A lake whose database is behind the wire."""
    url = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable&gssencmode=disable"
    schema = f"lake_{tmp_path.name.lower()}"
    return create_repository(tmp_path / "lake", system_clock, "ana", Database(url, schema))


def test_a_commit_whose_answer_was_lost_is_read_back_and_not_repeated(
    far: Repository, wire: Wire
) -> None:
    wire.loses_answer_to = COMMIT
    made = put(far, "table/a", 1)
    assert wire.loses_answer_to is None
    assert far.resolve("main") == made
    with far.store.reading() as tx:
        assert tx.row("select count(*) from operations where ref = 'main'") == (2,)


def test_a_commit_that_nobody_can_be_asked_about_is_unknown(far: Repository, wire: Wire) -> None:
    before = far.resolve("main")
    with pytest.raises(OutcomeUnknownError) as caught, far.store.transaction() as tx:
        publish(tx, far, "main", Edit(before, {"table/a": {"n": 1}}, "ana", "m", "test"))
        wire.loses_answer_to = COMMIT
        wire.refuses = True
    assert caught.value.kind == "commit-unknown"
    wire.refuses = False
    assert far.resolve("main") != before


_RETRYING = """
import sys
from pathlib import Path
from instep.clock import system_clock
from instep.errors import InstepError
from instep.history.edits import Edit, commit_edit
from instep.history.repository import open_repository
from instep.history.store import Database
root, url, schema, base = sys.argv[1:]
repo = open_repository(Path(root), system_clock, Database(url, schema))
print("ready", flush=True)
sys.stdin.readline()
try:
    edit = Edit(base, {"table/a": {"n": 1}}, "ana", "m", "test")
    print(commit_edit(repo, "try", edit, token="one").id)
except InstepError as error:
    print(error.kind)
"""


def retrying(far: Repository, database: Database, base: str) -> subprocess.Popen[str]:
    """Starts a client in a process of its own; it waits for a line before it commits."""
    child = subprocess.Popen(
        [sys.executable, "-c", _RETRYING, str(far.root), database.url, database.schema, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_what_one_process_did_and_never_heard_of_is_not_done_again_by_the_next(
    far: Repository, wire: Wire
) -> None:
    assert isinstance(far.store, PostgresStore)
    database, base = far.store.database, far.resolve("main")
    with far.store.transaction() as tx:
        create_ref(tx, "try", RefKind.BRANCH, base, owner="ana", at=far.clock())
    first, second = (retrying(far, database, base) for _ in range(2))
    wire.loses_answer_to = COMMIT
    wire.refuses = True
    said, _ = first.communicate("go\n", timeout=60)
    assert said == "commit-unknown\n"
    assert wire.loses_answer_to is None
    wire.refuses = False
    done, _ = second.communicate("go\n", timeout=60)
    assert far.resolve("try") == done.strip()
    with far.store.reading() as tx:
        assert tx.row("select count(*) from operations where ref = 'try'") == (2,)


def test_a_database_that_is_gone_is_unavailable(far: Repository, wire: Wire) -> None:
    before = far.resolve("main")
    far.store.close()
    wire.refuses = True
    with pytest.raises(UnavailableError) as caught:
        put(far, "table/a", 1)
    assert caught.value.kind == "database-unreachable"
    wire.refuses = False
    assert far.resolve("main") == before


@pytest.mark.parametrize("lost", [rb"set lock_timeout", rb"set search_path"])
def test_an_answer_that_is_lost_before_anything_is_asked_says_so_and_no_more(
    far: Repository, wire: Wire, lost: bytes
) -> None:
    far.store.close()
    wire.loses_answer_to = lost
    with pytest.raises(UnavailableError) as caught:
        far.resolve("main")
    assert caught.value.kind == "database-unreachable"
    assert "Nothing was changed" not in caught.value.message
    assert wire.loses_answer_to is None


def test_a_connection_that_broke_while_idle_is_opened_again(far: Repository, wire: Wire) -> None:
    for lost in (BEGIN, rb"isolation level"):
        wire.loses_answer_to = lost
        assert put(far, "table/a", 1) == far.resolve("main")
        assert wire.loses_answer_to is None


def test_a_connection_that_breaks_twice_or_inside_a_transaction_is_not_opened_again(
    far: Repository, wire: Wire
) -> None:
    assert isinstance(far.store, PostgresStore)
    wire.loses_answer_to, wire.refuses_after_loss = rb"isolation level", True
    with pytest.raises(UnavailableError):
        far.resolve("main")
    wire.refuses = wire.refuses_after_loss = False
    with pytest.raises(UnavailableError), far.store.reading() as reading:
        wire.loses_answer_to = rb"from lake"
        reading.row("select value from lake where name = 'format'")
    with pytest.raises(UnavailableError), far.store.transaction() as tx:
        tx.execute("insert into lake (name, value) values ('a', '1')")
        wire.loses_answer_to = rb"select 41"
        far.store.ask("select 41")
    with far.store.reading() as reading:
        assert reading.rows("select value from lake where name = 'a'") == []


def test_a_role_that_may_not_make_a_schema_is_refused(tmp_path: Path, postgres_url: str) -> None:
    role = f"guest_{tmp_path.name.lower()}"
    admin = PostgresStore(Database(postgres_url, "public"))
    with admin.transaction() as tx:
        tx.execute(f'create role "{role}" login')
    admin.close()
    url = postgres_url.replace("postgres:@", f"{role}:@")
    with pytest.raises(RefusedError) as caught:
        create_repository(tmp_path / "lake", system_clock, "ana", Database(url, "lake_of_a_guest"))
    assert caught.value.kind == "database-permission"


@on_both
def test_rows_of_an_older_format_are_loaded_and_of_a_newer_refused(
    repo: Repository, tmp_path: Path
) -> None:
    put(repo, "table/a", 1)
    with repo.store.reading() as tx:
        head, *lines = dump_lines(tx)
    older, newer = ({**json.loads(head), "format": one} for one in (1, FORMAT_VERSION + 1))

    def fill(first: dict[str, object]) -> Fill:
        def filled(store: Store, tx: Transaction) -> None:
            load_lines(tx, [json.dumps(first), *lines])

        return filled

    store = create_sqlite(tmp_path / "older" / CATALOG, fill(older))
    with store.reading() as tx:
        assert list(dump_lines(tx)) == [head, *lines]
    store.close()
    with pytest.raises(InvalidError) as caught:
        create_sqlite(tmp_path / "newer" / CATALOG, fill(newer))
    assert caught.value.kind == "bad-backup"


@on_both
def test_what_waits_to_be_written_is_seen_by_whoever_could_see_it(repo: Repository) -> None:
    with repo.store.transaction() as tx:
        for name in "ab":
            tx.write("insert into lake (name, value) values (?, ?)", (name, "1"))
        assert tx.row("select count(*) from refs") == (1,)
        assert tx.execute("update lake set value = '2' where name in ('a', 'b')") == 2
        tx.write("update lake set value = '3' where name = 'b'")
        with repo.store.reading() as inner:
            rows = inner.rows("select value from lake where name in ('a', 'b') order by name")
        assert rows == [("2",), ("3",)]
        tx.write("delete from lake where name = 'a'")
    with repo.store.reading() as tx:
        assert tx.row("select count(*) from lake where name in ('a', 'b')") == (1,)


@on_both
def test_what_was_written_wrongly_leaves_no_trace(repo: Repository) -> None:
    before = repo.resolve("main")
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), repo.store.transaction() as tx:
        publish(tx, repo, "main", Edit(before, {"table/a": {"n": 1}}, "ana", "m", "test"))
        tx.write("insert into lake (name, value) values ('root', 'twice')")
        tx.write("insert into lake (name, value) values ('other', 'one')")
    assert repo.resolve("main") == before
    assert put(repo, "table/b", 1) == repo.resolve("main")
