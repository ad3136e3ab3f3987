"""`instep branch merge`: bring one branch into another; conflicts as a list, or as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from instep.canonical import Json
from instep.changes.branch_merge import BranchMerge, MergedKey, Resolutions, merge_branch
from instep.cli.conflict_file import cell_text, read_conflicts, write_conflicts
from instep.cli.output import actor_option, counted, emit, json_option, project_option, table
from instep.cli.project import open_project
from instep.cli.written_file import check_writable
from instep.errors import ConflictError, InvalidError
from instep.tables.row_merge import Take

_SHOWN = 20
"""How many conflicting cells the text shows."""


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
        write_conflicts(conflicts, found)
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
             cell_text(each.base), cell_text(each.ours), cell_text(each.theirs))
            for each in rows.conflicts[:_SHOWN]
        ]  # fmt: skip
        yield table(cells, ("key", "column", "base", "ours", "theirs"), indent="    ")
        if rows.conflicting > _SHOWN:
            yield f"    and {rows.conflicting - _SHOWN:,} more"


def _resolutions(takes: tuple[str, ...], resolve: tuple[Path, ...]) -> Resolutions:
    keys: dict[str, Take] = {}
    otherwise: Take | None = None
    for text in takes:
        key, equals, side = text.rpartition("=")
        if equals:
            keys[key] = _side(side, text)
        else:
            otherwise = _side(text, text)
    return Resolutions(keys, read_conflicts(resolve), otherwise)


def _side(text: str, whole: str) -> Take:
    if text not in (Take.OURS, Take.THEIRS):
        raise InvalidError(
            f'--take {whole} cannot be read: expected "ours" or "theirs", or KEY=ours. '
            "Write for example --take contract/flights=theirs.",
            kind="bad-take",
        )
    return Take(text)
