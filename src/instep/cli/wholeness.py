"""Is everything in a lake, or in a backup of one, as it was written? The first thing that is not.

What is damaged is an error of the family "internal", as it is for every command that meets it: no
caller can mend it by another input, and the answer is a backup.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from instep.canonical import JsonObject
from instep.cli.progress import say
from instep.errors import Fact, InstepError, InternalError
from instep.findings import Finding
from instep.history.erasure import erased_digests
from instep.history.examine import Examination
from instep.history.forgetting import forgotten_commits
from instep.history.objects import ERASED, Objects, blob_of, file_digest
from instep.history.places import here
from instep.history.repository import Repository
from instep.history.seen import Seen
from instep.history.verify import blobs_of, damage
from instep.serving.segments import MAGIC, damaged_at
from instep.tables.content import TYPE as TABLE
from instep.tables.content import TableContent
from instep.tables.profile_keep import damaged_profiles
from instep.tables.read import located
from instep.tables.replaced import Why, why_replaced
from instep.tables.row_erasures import explained
from instep.tables.verify import Required, is_at, required_files

_MISSING = frozenset({"missing-commit", "missing-node", "missing-file"})
ERASED_BYTES = "erased-bytes"
_ATTEMPTS = 3
"""How often the lake is read again when files went meanwhile, with a deleted ref or erased."""


@dataclass(frozen=True, slots=True)
class Files:
    """Checks the files below `folder`: those of the lake at `home`, or of a backup of it."""

    folder: Path
    home: Path
    checked: Counter[str]
    quick: bool = False
    accepted: Collection[str] = frozenset()
    """Digests of what was erased on purpose: that these are gone is right."""
    explained: Collection[str] | None = None
    """Digests of metadata that an erasure put in a state's stead; None where nobody can know."""
    _seen: Seen = field(default_factory=Seen, repr=False)
    _blobs: set[str] = field(default_factory=set, repr=False)
    _listed: set[str] = field(default_factory=set, repr=False)

    def content(self, key: str, content: JsonObject, reached_by: str) -> Iterator[Finding]:
        """Yields what is wrong with the files of a content."""
        place = f"{key} in {reached_by}"
        if content.get("type") == TABLE:
            yield from self._table(TableContent.from_content(content), place)
        for digest in blobs_of(content):
            yield from self.blob(digest, place)

    def blob(self, digest: str, place: str) -> Iterator[Finding]:
        if digest in self._blobs:
            return
        self._blobs.add(digest)
        blobs = Objects(self.folder / "objects")
        for path in blobs.files(digest) or (blobs.path(digest),):
            yield from self._file(Required(path, digest, None), "blobs", place)

    def others(self) -> Iterator[Finding]:
        """Yields what is wrong with files that no commit names but that name their own digest."""
        if self.quick:
            return
        for folder in sorted(self.folder.glob("objects/??")):
            paths = sorted(folder.iterdir())
            notes = {path.stem for path in paths if path.name.endswith(ERASED)}
            for path in paths:
                digest = blob_of(path.name)
                if digest in notes:
                    yield damage(
                        ERASED_BYTES,
                        self._name(path),
                        "It was erased, and has bytes that a killed process left: expected the "
                        f'note about it alone. Give "instep erase {digest}" again.',
                    )
                elif len(digest) == 64 and str(path) not in self._seen:
                    required = Required(path, digest, None)
                    yield from self._file(required, "blobs", "no commit", may_go=True)
        for folder in sorted(self.folder.glob("tables/*/profiles")):
            for path in damaged_profiles(folder):
                yield damage(
                    "changed-file",
                    self._name(path),
                    "The profile has other bytes than when it was written. Remove the file: it "
                    "is computed again.",
                )
        for path in sorted(here(self.folder).glob("predictions/*.log")):
            self.checked["prediction segments"] += 1
            offset = damaged_at(path.read_bytes())
            if offset is not None:
                yield damage(
                    "changed-file",
                    self._name(path),
                    f"The record at byte {max(offset, len(MAGIC))} does not have its checksum.",
                )

    def _table(self, content: TableContent, place: str) -> Iterator[Finding]:
        self.checked["table states"] += 1
        for digest in (content.digest, content.files):
            if digest in self.accepted:
                return
        try:
            for required in required_files(self.folder, content, self._listed):
                kind = "data files" if required.is_data else "table files"
                wrong = list(self._file(required, kind, place))
                if wrong:
                    yield from wrong
                    if not required.is_data:
                        return
            if (
                self.explained is not None
                and why_replaced(self.folder, content) is Why.ERASED
                and located(self.folder, content).digest not in self.explained
            ):
                yield damage(
                    "unexplained-erasure",
                    place,
                    "Other metadata stands for it since rows were erased: expected a record of "
                    "who did so, and why.",
                )
            if not is_at(self.folder, content, self.home):
                yield damage(
                    "foreign-paths",
                    place,
                    f"Its Iceberg files name files outside {self.home}: expected paths in the "
                    'lake. Run "instep doctor --relocate moved" again.',
                )
        except (InstepError, KeyError, TypeError, ValueError) as error:
            yield damage("changed-file", place, str(error))

    def _file(
        self, required: Required, kind: str, place: str, *, may_go: bool = False
    ) -> Iterator[Finding]:
        path = required.path
        if required.digest in self.accepted or not self._seen.add(str(path)):
            return
        subject = f"{self._name(path)} ({place})"
        try:
            size = path.stat().st_size
            quick = self.quick and (required.is_data or kind == "blobs")
            digest = required.digest if quick else file_digest(path)
        except FileNotFoundError:
            if not may_go:
                yield damage("missing-file", subject, "The file is missing: expected it there.")
            return
        self.checked[kind] += 1
        self.checked["bytes"] += size
        say(f"checking files, {self.checked['bytes'] / 1e6:,.0f} MB so far")
        if required.size_bytes is not None and size != required.size_bytes:
            yield damage(
                "changed-file",
                subject,
                f"The file has {size:,} bytes: expected {required.size_bytes:,}.",
            )
        elif digest != required.digest:
            yield damage(
                "changed-file",
                subject,
                f"The file's bytes have the digest {digest[:12]}: expected {required.digest[:12]}.",
            )

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return str(path.relative_to(self.folder) if inside else path)


def examine(
    repo: Repository,
    checked: Counter[str],
    *,
    quick: bool = False,
    accepted: Collection[str] = frozenset(),
) -> Iterator[Finding]:
    """Yields everything that is wrong in a lake, the first thing first, while others write.

    `accepted` are digests that may be missing, besides those that were erased on purpose.
    """
    with repo.store.reading() as tx:
        accepted = erased_digests(tx).union(accepted)
        told = explained(tx)
    files = Files(repo.root, repo.root, checked, quick, accepted, told)
    try:
        yield from Examination(repo, files.content, checked, say).findings()
        yield from check_references(repo, files, checked)
        yield from files.others()
    except sqlite3.DatabaseError as error:
        yield damage("damaged-database", "catalog.sqlite", f"SQLite says: {error}")


def check_references(repo: Repository, files: Files, checked: Counter[str]) -> Iterator[Finding]:
    """Yields the records that name a commit or blob which is not there."""
    with repo.store.reading() as tx:
        commits = [
            *tx.rows(
                "select 'run ' || id, input_commit, output_commit from runs "
                "where state = 'succeeded'"
            ),
            *tx.rows(
                "select 'change ' || cast(number as text), base_commit, head_commit, "
                "merged_commit from changes where ended_at is null or merged_commit is not null"
            ),
        ]
        blobs = [
            *tx.rows(
                "select 'run ' || r.id, r.runtime_blob, r.code from runs r "
                "join commits c on c.id = r.output_commit where r.state = 'succeeded'"
            ),
            *tx.rows(
                "select 'arrival ' || a.id, a.file_digest, a.contract, a.profile, a.quarantine "
                "from arrivals a join changes c on c.number = a.change "
                "where c.ended_at is null or c.merged_commit is not null"
            ),
        ]
        forgotten = forgotten_commits(tx)
        known = {
            named: named in forgotten
            or tx.row("select 1 from commits where id = ?", (named,)) is not None
            for _, *each in commits
            for named in each
            if named
        }
    for record, *each in commits:
        checked["references"] += len(each)
        for named in each:
            if named and not known[named]:
                yield damage("missing-commit", str(record), f"It names commit {named}: not there.")
    for record, *each in blobs:
        for named in each:
            try:
                digests = json.loads(named).values() if str(named).startswith("{") else [named]
            except ValueError:
                yield damage("changed-record", str(record), f"Expected JSON, found {named!r}.")
                continue
            for digest in filter(None, digests):
                yield from files.blob(str(digest), str(record))


def check(
    repo: Repository, *, quick: bool = False, accepted: Collection[str] = frozenset()
) -> Counter[str]:
    """Returns how much was checked in a lake that is whole.

    Raises:
        InternalError (kind "damaged-lake"): names the first thing that is wrong.
        InternalError (kind "erased-bytes"): nothing is, but bytes of an erasure are left.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        checked: Counter[str] = Counter()
        before = _going(repo)
        first = next(examine(repo, checked, quick=quick, accepted=accepted), None)
        if first is None:
            return checked
        # What a ref reached may go with it, or be erased; with what is left it is looked at again.
        if first.kind not in _MISSING or attempt == _ATTEMPTS or before == _going(repo):
            raise damaged(repo, first, checked)
    raise AssertionError("the last attempt returns or raises")


def damaged(repo: Repository, first: Finding, checked: Counter[str]) -> InternalError:
    """Returns the error that names the first thing that is wrong."""
    told: dict[str, Fact] = {
        "finding": first.kind,
        "subject": first.subject,
        "what": first.message,
        "checked": sum(count for what, count in checked.items() if what != "bytes"),
    }
    if first.kind == ERASED_BYTES:
        return InternalError(
            f"The lake in {repo.root} still has what was erased: {first.subject}. {first.message}",
            kind=ERASED_BYTES,
            **told,
        )
    return InternalError(
        f"The lake in {repo.root} is damaged: {first.subject}. {first.message} Restore it from a "
        'backup ("instep restore").',
        kind="damaged-lake",
        **told,
    )


def _going(repo: Repository) -> tuple[set[str], Collection[str]]:
    """Returns what may take files with it while the lake is read: refs that go, what is erased."""
    try:
        with repo.store.reading() as tx:
            return {str(name) for (name,) in tx.rows("select name from refs")}, erased_digests(tx)
    except sqlite3.DatabaseError:
        return set(), ()
