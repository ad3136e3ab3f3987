"""Which contract holds for a table, or for a file by its name, at a commit?

A contract is read from main, never from disk. Only contracts that a file may fall under are parsed:
with a thousand tables, parsing all of them costs many seconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from instep.canonical import JsonObject
from instep.contracts.document import parse
from instep.contracts.terms import Contract, Source
from instep.errors import InvalidError
from instep.history.repository import Repository

_TAIL = re.compile(r"[\W_]*\d[\d\W_]*$")
"""The digits at the end of a name, with what parts them: of "trips-2024-01" the "-2024-01"."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A contract as main has it, with the digest of its text."""

    contract: Contract
    digest: str

    @property
    def key(self) -> str:
        return f"contract/{self.contract.table}"


def contract_of(repo: Repository, commit: str, table: str) -> InForce | None:
    """Returns the contract of a table at a commit, or None."""
    key = f"contract/{table}"
    content = repo.find(commit, key)
    return _in_force(repo, key, content) if content else None


def find_contract(
    repo: Repository, commit: str, file_name: str, table: str | None
) -> tuple[InForce | None, Source | None]:
    """Returns the contract that a file falls under, with the server it comes by.

    Raises:
        InvalidError (kind "ambiguous-file"): its name leads to several tables.
    """
    if table is None:
        hits = list(_matching(repo, commit, file_name))
        tables = sorted({in_force.contract.table for in_force, _ in hits})
        if len(tables) > 1:
            raise InvalidError(
                f"File {file_name} matches the contracts of {', '.join(tables)}: expected one. "
                "Name one with --table.",
                kind="ambiguous-file",
                tables=tuple(tables),
            )
        if hits:
            return hits[0]
    name = table or table_name(file_name)
    in_force = contract_of(repo, commit, name) if name is not None else None
    if in_force is None:
        return None, None
    sources = in_force.contract.sources
    matching = [one for one in sources if _matches(file_name, one.pattern)]
    return in_force, next(iter([*matching, *sources]), None)


def table_name(file_name: str) -> str | None:
    """Returns the table name that a file's own name suggests, without accents.

    None where that would drop a letter, or nothing is left: two names must not become one.
    """
    stem = unicodedata.normalize("NFKD", file_name.split(".")[0].casefold())
    letters = "".join(sign for sign in stem if not unicodedata.combining(sign))
    name = re.sub(r"[^a-z0-9_]+", "_", letters).strip("_")
    if not name or any(sign.isalnum() and not sign.isascii() for sign in letters):
        return None
    return f"t_{name}" if name[0].isdigit() else name


@dataclass(frozen=True, slots=True)
class Near:
    """A table whose files are named as an arriving one is, though none of its patterns matches."""

    table: str
    own: str
    """The table that the file's own name suggests."""
    pattern: str
    """What would match the file and others named so."""


def near_table(file_name: str, tables: Mapping[str, Sequence[str]]) -> Near | None:
    """Returns of which of the `tables` a file looks like more: `trips2.csv` of `trips`.

    `tables` are names with the patterns of their files. Names are alike where they differ in the
    digits at their ends alone, or are nothing but digits that stand alike, such as dates.
    """
    own, shape = table_name(file_name), _shape(file_name)
    if own is None or own in tables or not shape:
        return None
    for name, patterns in sorted(tables.items()):
        if shape in map(_shape, (name, *(pattern.rpartition("/")[2] for pattern in patterns))):
            stem, dot, ending = file_name.partition(".")
            root = _TAIL.sub("", stem)
            return Near(
                name, own, (f"{root}*" if root else re.sub(r"\d", "?", stem)) + dot + ending
            )
    return None


def _shape(name: str) -> str:
    """Returns what is alike in the names of files of one table: the root, or how digits stand."""
    stem = name.split(".")[0].casefold()
    root = re.sub(r"[\W_]+", "_", _TAIL.sub("", stem)).strip("_")
    return root or re.sub(r"\d", "0", stem)


def named_paths(text: str) -> list[str]:
    """Returns the paths that a contract's text names, unparsed: those on one line of their own."""
    return re.findall(r"""^[ -]*path: *["']?([^"'\s]+)""", text, re.MULTILINE)


def named_table(file_name: str) -> str:
    """Returns the table name that a file's own name suggests.

    Raises:
        InvalidError (kind "no-table-name").
    """
    name = table_name(file_name)
    if name is None:
        raise InvalidError(
            f'File "{file_name}" suggests no table name: expected letters from a to z, with or '
            "without accents. Name the table with --table.",
            kind="no-table-name",
            path=file_name,
        )
    return name


def _matching(repo: Repository, commit: str, file_name: str) -> Iterator[tuple[InForce, Source]]:
    for key, content in repo.entries(commit, "contract").items():
        if not may_match(_text(repo, content), file_name):
            continue
        in_force = _in_force(repo, key, content)
        for source in in_force.contract.sources:
            if _matches(file_name, source.pattern):
                yield in_force, source


def _in_force(repo: Repository, key: str, content: JsonObject) -> InForce:
    return InForce(_parsed(_text(repo, content), key), str(content["blob"]))


def _text(repo: Repository, content: JsonObject) -> str:
    return repo.objects.get(str(content["blob"])).decode()


@lru_cache(maxsize=1024)
def _parsed(text: str, key: str) -> Contract:
    return parse(text, f"{key} on main")


def _matches(file_name: str, pattern: str) -> bool:
    last = pattern.rsplit("/", 1)[-1]
    return fnmatchcase(file_name, last) or fnmatchcase(file_name, f"{last}.gz")


_ESCAPED = re.compile(r"\\[xuU\n]")
"""What may hide a letter of a key, or cut a key in two."""

_SIMPLE_PATH = re.compile(
    r"""
    ["']?[ ]*:[ ]+
    (?: "(?P<double>[^"\\\n\r\x85\u2028\u2029]*)"
      | '(?P<single>[^'\n\r\x85\u2028\u2029]*)'(?!')
      | (?P<plain>[\w./][\w./*?-]*)
        (?= [ ]*(?P<flow>[,}]) | [ ]+\# | [ ]*\n[^\n]*:(?:[ \n]|$) | \s*\Z )
    )
    """,
    re.VERBOSE,
)
"""What follows `path` where its value is one plain word or one quoted line."""


def may_match(text: str, file_name: str) -> bool:
    """Tells from a contract's text, unparsed, whether a file may come by one of its servers.

    Never a wrong no: every `path` in the text must be seen to be another; what is not seen at a
    glance, as an alias or a folded line, is a yes.
    """
    if _ESCAPED.search(text):
        return True
    for key in re.finditer("path", text):
        found = _SIMPLE_PATH.match(text, key.end())
        if found is None:
            return True
        if found["flow"] and "{" not in text[text.rfind("\n", 0, key.start()) + 1 : key.start()]:
            return True  # outside of braces a comma is a part of the word
        if _matches(file_name, found["double"] or found["single"] or found["plain"] or ""):
            return True
    return False
