"""The command line: which commands there are, and how an error leaves the process.

A command is imported when it is called, so that `instep --help` imports nothing heavy.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from instep.cli.progress import clear
from instep.errors import InstepError, InternalError, InvalidError, disk_error


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: where its function is, and the one line that help shows."""

    place: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("instep.cli.init:init", "Make a lake for this project."),
    "demo": Entry("instep.cli.demo:demo", "Walk the whole way once, on real flights."),
    "status": Entry("instep.cli.status:status", "Where am I, what waits, what is next?"),
    "ingest": Entry("instep.cli.ingest:ingest", "Let files arrive, checked by their contract."),
    "accept": Entry("instep.cli.accept:accept", "Let a held arrival in, with a reason."),
    "refuse": Entry("instep.cli.accept:refuse", "Turn a held arrival away, with a reason."),
    "show": Entry("instep.cli.show:show", "What a commit, branch, environment or change holds."),
    "log": Entry("instep.cli.log:log", "The history of a branch."),
    "diff": Entry("instep.cli.diff:diff", "Keys, schema and rows that differ."),
    "branch": Entry("instep.cli.branch:branch", "List, make, rename, delete, protect branches."),
    "tag": Entry("instep.cli.branch:tag", "Name a commit for good."),
    "undo": Entry("instep.cli.undo:undo", "Set back what a commit or a change did."),
    "plan": Entry("instep.cli.plan:plan", "What a run would do, and cost."),
    "run": Entry("instep.cli.run:run", "Run a pipeline on a branch: one commit, or nothing."),
    "config": Entry("instep.cli.config:config", "Read or set one value of a pipeline."),
    "reproduce": Entry("instep.cli.reproduce:reproduce", "Run an old run again, and compare."),
    "propose": Entry("instep.cli.propose:propose", "Propose a branch, or the project's files."),
    "review": Entry("instep.cli.review:review", "A change with its evidence."),
    "changes": Entry("instep.cli.review:changes", "The changes, and who must act."),
    "approve": Entry("instep.cli.approve:approve", "Agree to somebody else's change."),
    "reject": Entry("instep.cli.approve:reject", "End a change, with a reason."),
    "merge": Entry("instep.cli.merge:merge", "Bring an approved change to main."),
    "release": Entry("instep.cli.release:release", "Move an environment to a commit."),
    "rollback": Entry("instep.cli.release:rollback", "Move an environment, or one key, back."),
    "where": Entry("instep.cli.where:where", "What is live where, since when, by whom."),
    "serve": Entry("instep.cli.serve:serve", "Answer predictions over HTTP, with receipts."),
    "watch": Entry("instep.cli.watch:watch", "What changed since the model was made."),
    "doctor": Entry("instep.cli.doctor:doctor", "Is everything in the lake as it was written?"),
    "backup": Entry("instep.cli.backup:backup", "Copy the whole lake, while others write."),
    "restore": Entry("instep.cli.restore:restore", "Make a lake of a backup."),
    "gc": Entry("instep.cli.gc:gc", "Delete what nothing names any more."),
    "compact": Entry("instep.cli.compact:compact", "Put small files of tables together."),
    "erase": Entry("instep.cli.erase:erase", "Remove an object's bytes from all history."),
    "explain": Entry("instep.cli.explain:explain", "Why a prediction is what it is."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else 'See "instep --help".'
            ctx.fail(f'There is no command "{args[0]}". {hint}')
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="instep", message="instep %(version)s")
def cli() -> None:
    """Change management for data and for the models trained on it.

    \b
    A first walk:   instep demo
    In a project:   instep init, then instep status
    """


def main() -> None:
    """Runs the command line; every error ends as one message and its family's exit code."""
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BaseException as error:
        code = _end(error)
    sys.exit(code)


def _end(error: BaseException) -> int:
    """Says what ended the command, and returns its exit code."""
    match error:
        case SystemExit():
            raise error
        case InstepError():
            _report(error)
            return error.exit_code
        case click.ClickException():
            # Wrong words at the command line are wrong input.
            _report(InvalidError(error.format_message(), kind="usage"), shown=error.show)
            return error.exit_code
        case UnicodeEncodeError() if error.reason == "surrogates not allowed":
            words = "A name holds bytes that are no text: expected UTF-8. Write it anew."
            return _end(InvalidError(words, kind="usage"))
        case OSError() if (failed := disk_error(error)) is not None:
            return _end(failed)
    if isinstance(error, click.Abort | KeyboardInterrupt) or "Query interrupted" in str(error):
        clear()
        click.echo("Interrupted.", err=True)
        return 130
    import traceback

    clear()
    traceback.print_exception(error)
    fault = InternalError(
        f"{type(error).__name__}: {error}. Please report this as a fault of Instep, with the "
        "lines above.",
        kind="unexpected",
    )
    _report(fault)
    return fault.exit_code


def _report(error: InstepError, shown: Callable[[], object] | None = None) -> None:
    clear()
    if "--json" in sys.argv:
        body = {
            "family": error.family,
            "kind": error.kind,
            "message": error.message,
            **error.facts,
        }
        click.echo(json.dumps({"error": body}, default=str))
    if shown is not None:
        shown()
    else:
        click.echo(f"{error.family}: {error.message}", err=True)
