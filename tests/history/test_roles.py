"""What each role of a PostgreSQL server may do in a lake, and who makes an older lake a new one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import garbage
import pytest
from histories import Compaction

from instep.clock import Clock
from instep.errors import RefusedError
from instep.history.dump import dump_lines
from instep.history.postgres import PostgresStore
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.store import FORMAT_VERSION, Database
from instep.tables.content import TableContent
from instep.tables.read import located
from instep.tables.replaced import decided

GRANTED = {
    "reader": "grant select on all tables in schema {schema} to {role}",
    "writer": "grant all on all tables in schema {schema} to {role}; "
    "grant create on schema {schema} to {role}",
    "stranger": "",
}


class Roles:
    """An older lake of one role, `owner`, with a table, which others may use as they were granted.

    `admin` is the server's own role, which may do anything.
    """

    def __init__(self, url: str, root: Path, clock: Clock) -> None:
        self.url, self.root, self.clock = url, root, clock
        self.schema = f"lake_{uuid4().hex}"
        self.opened: list[Repository] = []
        self._as_admin(
            *(f"create role {self.role(name)} login" for name in ("owner", *GRANTED)),
            f"grant create on database postgres to {self.role('owner')}",
        )
        repo = create_repository(root, clock, "ana", self.database("owner"))
        self.table = garbage.grown(repo, garbage.new_table(repo), [1])
        garbage.commit(repo, "main", table__t=self.table.to_content())
        repo.store.close()
        self._as_admin(
            f"drop table {self.schema}.replacements",
            f"update {self.schema}.lake set value = '1' where name = 'format'",
        )
        for name, granted in GRANTED.items():
            named = {"schema": self.schema, "role": self.role(name)}
            for one in f"grant usage on schema {{schema}} to {{role}}; {granted}".split(";"):
                if one.strip():
                    self._as_admin(one.format(**named))

    def role(self, name: str) -> str:
        return f"{self.schema}_{name}" if name != "admin" else "postgres"

    def database(self, name: str) -> Database:
        return Database(self.url.replace("postgres:@", f"{self.role(name)}:@"), self.schema)

    def open(self, name: str) -> Repository:
        repo = open_repository(self.root, self.clock, self.database(name))
        self.opened.append(repo)
        return repo

    def _as_admin(self, *statements: str) -> None:
        store = PostgresStore(Database(self.url, "public"))
        with closing(store), store.transaction() as tx:
            for statement in statements:
                tx.execute(statement)


@pytest.fixture
def roles(postgres_url: str, tmp_path: Path, clock: Clock) -> Iterator[Roles]:
    made = Roles(postgres_url, tmp_path / "lake", clock)
    yield made
    for repo in made.opened:
        repo.store.close()


def replaced(repo: Repository, table: TableContent) -> str:
    """Lets other metadata stand for a state; returns its digest."""
    with Compaction(repo, table) as compaction:
        compaction.swap()
    return compaction.now.digest


def format_of(repo: Repository) -> int:
    with repo.store.reading() as tx:
        [(found,)] = tx.rows("select value from lake where name = 'format'")
    return int(found)


def test_who_may_only_read_an_older_lake_reads_it_as_it_is(roles: Roles) -> None:
    repo = roles.open("reader")
    assert garbage.numbers(repo, roles.table) == [1]
    assert decided(repo, roles.table.uuid) == {}
    with repo.store.reading() as tx:
        assert list(dump_lines(tx))
    assert format_of(repo) == 1


def test_who_may_write_an_older_lake_writes_it_and_replaces_nothing_before_its_owner_came(
    roles: Roles,
) -> None:
    repo = roles.open("writer")
    garbage.commit(repo, "main", table__u=roles.table.to_content())
    with pytest.raises(RefusedError, match="instep status") as caught:
        replaced(repo, roles.table)
    assert caught.value.kind == "database-permission"
    assert garbage.numbers(repo, roles.table) == [1]
    assert format_of(repo) == 1
    roles.open("owner")
    assert located(repo.root, roles.table) == roles.table
    now = replaced(repo, roles.table)
    assert located(repo.root, roles.table).digest == now


@pytest.mark.parametrize("first", ["owner", "admin"])
def test_what_is_added_belongs_to_the_owner_and_others_may_do_with_it_what_they_may_beside(
    roles: Roles, first: str
) -> None:
    assert format_of(roles.open(first)) == FORMAT_VERSION
    for name in ("owner", "writer"):
        now = replaced(roles.open(name), roles.table)
        reader = roles.open("reader")
        assert located(reader.root, roles.table).digest == now
        assert decided(reader, roles.table.uuid)[roles.table.digest].digest == now
    with roles.open("owner").store.transaction() as tx:
        tx.execute("alter table replacements add column owned text")
    with pytest.raises(RefusedError), reader.store.transaction() as tx:
        tx.execute("delete from replacements")


def test_a_role_that_may_not_read_is_told_so(roles: Roles) -> None:
    with pytest.raises(RefusedError, match="permission denied for table lake") as caught:
        roles.open("stranger")
    assert caught.value.kind == "database-permission"
