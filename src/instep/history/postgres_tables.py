"""Which tables a lake in PostgreSQL has, and the making of those that it lacks.

A lake of an older format gets the younger tables from whoever owns its others: they go to the same
owner, and whoever was granted something on `refs`, which all who use a lake do, is granted the
same on them. Nobody else makes tables in it: who may only read goes on reading it as it is.
"""

from __future__ import annotations

from instep.errors import UnavailableError
from instep.history.store import FORMAT_VERSION, Transaction, migration_scripts

_MAY = (
    "select pg_has_role(relowner, 'usage') and has_schema_privilege(relnamespace, 'create') "
    "from pg_class where oid = to_regclass('refs')"
)
_TABLES = "select tablename from pg_tables where schemaname = current_schema()"
_OWNER = "select quote_ident(pg_get_userbyid(relowner)) from pg_class where oid = to_regclass(?)"
_GRANTS = (
    "select privilege_type, "
    "case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end, "
    "case when is_grantable then ' with grant option' else '' end "
    "from pg_class, aclexplode(relacl) where oid = to_regclass(?) and grantee <> relowner"
)


def make_tables(tx: Transaction) -> None:
    """Makes every table in a new schema."""
    _run(tx, 0)
    tx.execute("insert into lake (name, value) values ('format', ?)", (str(FORMAT_VERSION),))


def format_of(tx: Transaction, schema: str) -> int:
    """Returns the format of a lake, which is this Instep's or older.

    Raises: UnavailableError (kind "newer-lake").
    """
    row = tx.row("select value from lake where name = 'format'")
    found = int(row[0]) if row else 0
    if not 1 <= found <= FORMAT_VERSION:
        raise UnavailableError(
            f'The lake in schema "{schema}" has format {found or "unknown"}: this Instep reads 1 '
            f"to {FORMAT_VERSION}. Use the Instep that wrote it.",
            kind="newer-lake",
        )
    return found


def may_migrate(tx: Transaction) -> bool:
    """Says whether the role owns the lake's tables, and may make others beside them."""
    row = tx.row(_MAY)
    return row is not None and bool(row[0])


def migrate(tx: Transaction, since: int) -> None:
    """Makes a lake of the format `since` one of this format."""
    before = set(tx.rows(_TABLES))
    _run(tx, since)
    [(owner,)] = tx.rows(_OWNER, ("refs",))
    grants = tx.rows(_GRANTS, ("refs",))
    for (table,) in set(tx.rows(_TABLES)) - before:
        tx.execute(f"alter table {table} owner to {owner}")
        for privilege, role, how in grants:
            tx.execute(f"grant {privilege} on {table} to {role}{how}")
    tx.execute("update lake set value = ? where name = 'format'", (str(FORMAT_VERSION),))


def _run(tx: Transaction, since: int) -> None:
    for script in migration_scripts(since):
        for statement in filter(str.strip, script.split(";")):
            tx.execute(_ordered_by_bytes(statement))


def _ordered_by_bytes(statement: str) -> str:
    """Makes text compare by its bytes, as in SQLite and whatever the database's locale."""
    return statement.replace(" text", ' text collate "C"')
