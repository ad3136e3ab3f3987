"""`instep branch merge`: bring one branch into another; conflicts as a list, or as a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.branch_merge import BranchMerge, MergedKey, Resolutions, merge_branch
from instep.cli.output import actor_option, counted, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.cli.written_file import check_writable
from instep.errors import ConflictError, InvalidError
from instep.tables.row_merge import Choice, Place, Resolution, Take

_SHOWN = 20
"""How many conflicting cells the text shows."""

_FIELDS = ("table", "key", "column", "base", "ours", "theirs", "take", "value")


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What came in, what was merged, and what is left to decide."""

    merge: BranchMerge

    def to_json(self) -> dict[str, Json]:
        merge = self.merge
        return {
            "into": merge.into,
            "source": merge.source,
            "commit": merge.commit.id if merge.commit else None,
            "taken": list(merge.taken),
            "both": [_key_json(one) for one in merge.both],
            "make_again": [one.to_json() for one in merge.again],
        }

    def to_text(self) -> str:
        merge = self.merge
        if merge.commit is None:
            left = counted(len(merge.conflicts), "key")
            first = f"{left} in conflict, nothing was merged into {merge.into}:"
        else:
            first = f"Merged {merge.source} into {merge.into} as {merge.commit.id[:12]}."
        lines = [first, *(f"  + {key}" for key in merge.taken if merge.commit)]
        for one in merge.both:
            lines += _key_lines(one)
        if merge.again:
            lines += ["Stale now, until it is made again:", *(f"  {one}" for one in merge.again)]
            runs = sorted({one.pipeline for one in merge.again})
            lines += [f'  "instep run {name} --branch {merge.into}"' for name in runs]
        if merge.commit is None:
            lines.append(
                "Decide with --take ours, --take theirs, --take KEY=ours, or row by row: "
                "--conflicts FILE, fill in its column take, then --resolve FILE."
            )
        return "\n".join(lines)


@click.command(name="merge")
@click.argument("source")
@click.argument("into")
@click.option(
    "--take",
    "takes",
    multiple=True,
    metavar="[KEY=]SIDE",
    help='Settle conflicts: "ours" (of INTO) or "theirs", for one key or for all.',
)
@click.option(
    "--conflicts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the conflicting rows and cells to this CSV file, to be decided there.",
)
@click.option(
    "--resolve",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help='Settle conflicts by such files: take is "ours", "theirs" or "given" (its value).',
)
@click.option("--why", default="", help="The reason; it becomes the commit's message.")
@project_option
@actor_option
@json_option
def merge(
    source: str,
    into: str,
    takes: tuple[str, ...],
    conflicts: Path | None,
    resolve: tuple[Path, ...],
    why: str,
    project: Path | None,
    actor: str | None,
    as_json: bool,
) -> int:
    """Bring what SOURCE changed into branch INTO; tables by the policy of their contract.

    Exit code 4 when conflicts are left; then nothing was merged.

    \b
    Example:  instep branch merge main try-weather --as ana
              instep branch merge main try-weather --resolve conflicts.csv --as ana
    """
    if conflicts is not None:
        check_writable(conflicts)
    opened = open_project(project)
    name = opened.actor(actor)
    found = merge_branch(
        opened.repo,
        source,
        into,
        author=name,
        why=why,
        resolutions=_resolutions(takes, resolve),
    )
    if conflicts is not None:
        _write(conflicts, found)
    emit(MergeResult(found), as_json)
    return 0 if found.commit else ConflictError.exit_code


def _key_json(one: MergedKey) -> dict[str, Json]:
    said: dict[str, Json] = {"key": one.key, "how": one.how, "conflict": one.left}
    if one.rows is not None:
        rows = one.rows
        said["rows"] = {
            "added": rows.added,
            "changed": rows.changed,
            "removed": rows.removed,
            "settled": rows.settled,
            "conflicting": rows.conflicting,
            "conflicts": [each.to_json() for each in rows.conflicts],
            "definition": [each.to_json() for each in rows.definition],
            "files": list(rows.files),
        }
    return said


def _key_lines(one: MergedKey) -> Iterator[str]:
    rows = one.rows
    if rows is None:
        yield f"  {'!' if one.left else '~'} {one.key}: {one.how}"
        return
    if not one.left:
        settled = f", {counted(rows.settled, 'conflict')} settled" if rows.settled else ""
        yield (
            f"  ~ {one.key}: {one.how}; {counted(rows.added, 'row')} added, {rows.changed:,} "
            f"changed, {rows.removed:,} removed{settled}"
        )
        return
    for each in rows.definition:
        whole = "" if each.by_side else f" (settled by --take {one.key}=ours or theirs alone)"
        yield f"  ! {one.key}: {each}{whole}"
    for path in rows.files:
        yield f"  ! {one.key}: both sides rewrote {Path(path).name}, and it has no key"
    if rows.conflicts:
        yield f"  ! {one.key}: {counted(rows.conflicting, 'conflict')}"
        cells = [
            (", ".join(str(part) for part in each.key), each.column or "(row)",
             _shown(each.base), _shown(each.ours), _shown(each.theirs))
            for each in rows.conflicts[:_SHOWN]
        ]  # fmt: skip
        yield table(cells, ("key", "column", "base", "ours", "theirs"), indent="    ")
        if rows.conflicting > _SHOWN:
            yield f"    and {rows.conflicting - _SHOWN:,} more"


def _shown(text: str | None) -> str:
    return "null" if text is None else text


def _write(path: Path, merge: BranchMerge) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_FIELDS)
        for one in merge.conflicts:
            for each in one.rows.conflicts if one.rows else ():
                row = (each.base, each.ours, each.theirs)
                writer.writerow([one.key, json.dumps(each.key), each.column, *row, "", ""])
            for part in one.rows.definition if one.rows else ():
                if part.by_side:
                    said = (part.base, part.ours, part.theirs)
                    writer.writerow([one.key, "[]", part.what, *said, "", ""])


def _resolutions(takes: tuple[str, ...], resolve: tuple[Path, ...]) -> Resolutions:
    keys: dict[str, Take] = {}
    otherwise: Take | None = None
    for text in takes:
        key, equals, side = text.rpartition("=")
        if equals:
            keys[key] = _side(side, text)
        else:
            otherwise = _side(text, text)
    return Resolutions(keys, _read(resolve), otherwise)


def _side(text: str, whole: str) -> Take:
    if text not in (Take.OURS, Take.THEIRS):
        raise InvalidError(
            f'--take {whole} cannot be read: expected "ours" or "theirs", or KEY=ours. '
            "Write for example --take contract/flights=theirs.",
            kind="bad-take",
        )
    return Take(text)


def _read(paths: tuple[Path, ...]) -> dict[str, Resolution]:
    """Reads files that `--conflicts` wrote; lines without a take stay open, the last one counts."""
    choices: dict[str, dict[Place, Choice]] = {}
    for path in paths:
        for row, take, key in _lines(path):
            value = (row["value"] or None) if take is Take.GIVEN else None
            choices.setdefault(row["table"], {})[(key, row["column"])] = Choice(take, value)
    return {name: Resolution(found) for name, found in choices.items()}


def _lines(path: Path) -> Iterator[tuple[dict[str, str], Take, tuple[str | None, ...]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _FIELDS:
            raise InvalidError(
                f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}: expected "
                f"{', '.join(_FIELDS)}. Let --conflicts write it.",
                kind="bad-take",
            )
        for row in reader:
            if not row["take"]:
                continue
            try:
                yield row, Take(row["take"]), tuple(json.loads(row["key"]))
            except ValueError:
                raise InvalidError(
                    f'{path}, line {reader.line_num}: take "{row["take"]}" for key {row["key"]} '
                    'cannot be read: expected "ours", "theirs" or "given", and the key as it was '
                    "written. Correct the line.",
                    kind="bad-take",
                ) from None
