"""The command line: which commands there are, and how an error leaves the process.

A command is imported when it is called, so that `instep --help` imports nothing heavy.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import dataclass

import click

from instep.cli.progress import clear
from instep.errors import InstepError

_UNEXPECTED = 1


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
    "branch": Entry("instep.cli.branch:branch", "List the branches, or make one."),
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
    "restore": Entry("instep.cli.backup:restore", "Make a lake of a backup."),
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
    except InstepError as error:
        _report(error)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception:
        import traceback

        traceback.print_exc()
        click.echo("This is a fault of Instep: please report it with the lines above.", err=True)
        code = _UNEXPECTED
    sys.exit(code)


def _report(error: InstepError) -> None:
    if "--json" in sys.argv:
        facts = dict(error.facts)
        body = {"family": error.family, "kind": error.kind, "message": error.message, **facts}
        click.echo(json.dumps({"error": body}, default=str))
    clear()
    click.echo(f"{error.family}: {error.message}", err=True)
