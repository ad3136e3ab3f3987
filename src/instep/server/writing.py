"""What a client may change: each request is one commit on a branch, or nothing.

The client is its author. What was done under a key of the client's, or adds a snapshot that was
added before, is not done again: a client whose answer was lost is told what was done. A key stands
for the request, not for its outcome, since what a request makes has another digest each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from instep.canonical import JsonObject
from instep.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from instep.faults import reached
from instep.history.ancestry import is_ancestor
from instep.history.condemned import doomed_below
from instep.history.edits import Edit, publish_at
from instep.history.locks import writing
from instep.history.naming import is_named
from instep.history.refs import refuse_protected
from instep.history.repository import Repository
from instep.history.tips import get_tip
from instep.history.tokens import act_digest, find_done, keep_done
from instep.server.reading import (
    Loaded,
    Place,
    find_place,
    find_table,
    get_table,
    kept_from_deletion,
    load_state,
    refuse_taken,
    table_key,
    writable,
)
from instep.server.updates import TableChange, changed, new_table
from instep.tables.adopt import adopt
from instep.tables.content import TableContent
from instep.tables.iceberg import Metadata
from instep.tables.reach import added_files
from instep.tables.write import check_table_name, make_table_folder


@dataclass(frozen=True, slots=True)
class Act:
    """Who asks for what: `key` is the client's name for it, `body` the request that it stands for.

    `basis` says how the author is known: asserted, or authenticated.
    """

    author: str
    basis: str
    key: str | None
    body: JsonObject


Changes = Mapping[str, TableContent | None]
"""The tables that a commit sets, by name; None removes one."""


def create(repo: Repository, place: Place, act: Act, body: Metadata) -> Loaded:
    """Commits a new table, and returns it.

    Raises:
        ConflictError (kind "table-exists").
        InvalidError (kind "bad-name", "bad-request"), and as `tables.adopt.adopt`.
    """
    name = str(body.get("name", ""))

    def make(now: Place) -> Changes:
        _check_free(repo, now, name)
        table = str(uuid.uuid4())
        metadata = new_table(body, make_table_folder(repo.root, table), table)
        return {name: adopt(repo.root, None, metadata)}

    done = _carry_out(repo, place, act, f"create {name}", make)
    return _loaded(repo, done, name)


def stage(repo: Repository, place: Place, body: Metadata) -> Loaded:
    """Returns a table that does not exist yet: its client fills it, then commits it."""
    writable(place)
    name = str(body.get("name", ""))
    _check_free(repo, place, name)
    table = str(uuid.uuid4())
    metadata = new_table(body, make_table_folder(repo.root, table), table)
    return Loaded("", kept_from_deletion(metadata))


def commit(repo: Repository, place: Place, act: Act, changes: Sequence[TableChange]) -> Place:
    """Commits changes of several tables as one, or none; returns the place as it was after.

    Raises:
        ConflictError (kind "requirement-failed", "keys-moved"): another commit came first.
        NotFoundError (kind "no-such-key"), ConflictError (kind "table-exists").
        InvalidError: as `updates.changed`.
    """
    names = [change.name for change in changes]
    if len(set(names)) < len(names):
        raise InvalidError(
            f"A transaction names a table twice: expected each once, of {', '.join(names)}. "
            "Put what is for one table together.",
            kind="bad-request",
        )

    def make(now: Place) -> Changes:
        return {change.name: _after(repo, now, change) for change in changes}

    return _carry_out(repo, place, _known_by_snapshots(act, changes), _message(changes), make)


def rename(repo: Repository, place: Place, act: Act, before: str, after: str) -> None:
    """Commits a table under another name; it stays the same table."""

    def make(now: Place) -> Changes:
        content = get_table(repo, now, before)
        _check_free(repo, now, after)
        return {before: None, after: content}

    _carry_out(repo, place, act, f"rename {before} to {after}", make)


def drop(repo: Repository, place: Place, act: Act, name: str) -> None:
    """Commits that a table is gone; its files stay for the commits that have it."""

    def make(now: Place) -> Changes:
        get_table(repo, now, name)
        return {name: None}

    _carry_out(repo, place, act, f"drop {name}", make)


def _carry_out(
    repo: Repository, place: Place, act: Act, message: str, make: Callable[[Place], Changes]
) -> Place:
    """Makes new states and commits them on the branch that the place is; returns the place after.

    A request that is sent again while its first sending is under way has waited for that, on this
    server (`turns`). Where another has done it meanwhile this one fails, and then that is asked
    about once more.

    Raises:
        RefusedError (kind "protected-branch", "read-only-place").
        OutcomeUnknownError (kind "commit-unknown").
    """
    branch = writable(place).name
    done = _done(repo, branch, act)
    if done is not None:
        return _at(place, done)
    try:
        return _carried_out(repo, place, branch, act, message, make)
    except (ConflictError, NotFoundError, OutcomeUnknownError) as error:
        try:
            done = _done(repo, branch, act)
        except UnavailableError:
            raise error from None
        if done is None:
            raise
        return _at(place, done)


def _carried_out(
    repo: Repository,
    place: Place,
    branch: str,
    act: Act,
    message: str,
    make: Callable[[Place], Changes],
) -> Place:
    with writing(repo.root, repo.store):
        place = find_place(repo, branch)  # what is read before is not kept from collection
        made = make(place)
        changes = {
            table_key(name): content.to_content() if content else None
            for name, content in made.items()
        }
        if all(repo.find(place.commit, key) == content for key, content in changes.items()):
            return place
        origin = f"rest, {act.basis}"
        edit = Edit(place.commit, changes, act.author, message, origin)
        return _at(place, _published(repo, branch, act, edit))


def _published(repo: Repository, branch: str, act: Act, edit: Edit) -> str:
    reached("rest.commit.before")
    with repo.store.transaction(branch) as tx:
        tip = get_tip(tx, branch)
        refuse_protected(tip.ref)
        commit = publish_at(tx, repo, tip, edit)
        if act.key is not None:
            keep_done(tx, act.key, _digest(branch, act), ref=branch, commit=commit.id, at=commit.at)
    reached("rest.commit.after")
    return commit.id


def _done(repo: Repository, branch: str, act: Act) -> str | None:
    """Returns the commit that was made under the act's key, if there was one.

    Raises:
        ConflictError (kind "done-elsewhere"): the branch was deleted and made again without it.
    """
    if act.key is None:
        return None
    with repo.store.reading() as tx:
        done = find_done(tx, act.key, _digest(branch, act))
        if done is not None and not is_ancestor(tx, done, get_tip(tx, branch).ref.commit):
            raise _done_elsewhere(branch, act.key, done)
    return done


def _done_elsewhere(branch: str, key: str, commit: str) -> ConflictError:
    return ConflictError(
        f'What was asked for was done before, as commit {commit[:12]}, but "{branch}" does not '
        "have that commit any more: expected a branch that has it. Nothing was changed. Ask under "
        "a new key to do it again.",
        kind="done-elsewhere",
        token=key,
        commit=commit,
    )


def _digest(branch: str, act: Act) -> str:
    return act_digest({"rest": act.body, "ref": branch, "author": act.author})


def _known_by_snapshots(act: Act, changes: Sequence[TableChange]) -> Act:
    """Gives an act a key where the client gave none: snapshot ids are random, so it is its own."""
    if act.key is not None or not any(change.adds_snapshot for change in changes):
        return act
    key = f"rest:{act_digest(act.body)}"
    return Act(act.author, act.basis, key, act.body)


def _after(repo: Repository, place: Place, change: TableChange) -> TableContent:
    """Makes the state after a change, of files that nobody will delete.

    The client's files are older than this server's claim to them, so they may be condemned. First
    that is asked, then each is read: what is condemned later stays as long as this is at work.
    """
    before = None if change.makes_table else get_table(repo, place, change.name)
    if before is None:
        _check_free(repo, place, change.name)
    doomed = _doomed(repo, before.uuid if before else change.uuid)
    content = changed(repo.root, before, change)
    if before is None:
        _refuse_another(repo, content)
    if doomed:
        _refuse_doomed(repo, before, content, doomed)
    return content


def _doomed(repo: Repository, table: str) -> Collection[str]:
    with repo.store.reading() as tx:
        return doomed_below(tx, f"tables/{table}/")


def _refuse_doomed(
    repo: Repository, before: TableContent | None, content: TableContent, doomed: Collection[str]
) -> None:
    """Holds that a state brings no file that may be deleted at any moment.

    Raises:
        ConflictError (kind "condemned-files").
    """
    added = {f"tables/{content.uuid}/{name}" for name in added_files(repo.root, before, content)}
    if going := sorted(added.intersection(doomed)):
        raise ConflictError(
            f"{len(going)} of the files that are committed, such as {going[0]}, are being deleted "
            "by a collection or an erasure, since no commit named them for so long: expected files "
            "that stay. Nothing was committed. Load the table again, write the files anew, then "
            "commit.",
            kind="condemned-files",
            path=going[0],
            count=len(going),
        )


def _refuse_another(repo: Repository, content: TableContent) -> None:
    """Holds that a staged table is not one that was committed: a uuid is one table's.

    Another state there may be of an attempt of the same request that published nothing. Where there
    is none, as most often, no commit has to be asked.
    """
    metadata = repo.root / "tables" / content.uuid / "metadata"
    if sum(1 for _ in metadata.glob("*.metadata.json")) == 1:
        return
    with repo.store.reading() as tx:
        is_taken = is_named(tx, content.uuid)
    if is_taken:
        raise InvalidError(
            f"A new table with the uuid {content.uuid} was asked for: expected the one that was "
            "given when it was staged, and was not committed yet. Begin to make the table again.",
            kind="bad-request",
        )


def _check_free(repo: Repository, place: Place, name: str) -> None:
    check_table_name(name)
    if find_table(repo, place.commit, name) is not None:
        raise refuse_taken(place, name)


def _message(changes: Sequence[TableChange]) -> str:
    return ", ".join(f"{change.operation} {change.name}" for change in changes)


def _at(place: Place, commit: str) -> Place:
    return Place(place.name, commit, place.ref)


def _loaded(repo: Repository, place: Place, name: str) -> Loaded:
    return load_state(repo, get_table(repo, place, name), for_writing=True)
