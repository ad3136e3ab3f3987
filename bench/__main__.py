"""Runs the benches whose names begin with the argument, and prints each figure as it is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from bench import (
    buckets,
    commands,
    garbage,
    history,
    ingest,
    merge,
    profiles,
    rest,
    rowdiff,
    serving,
    tables,
)
from bench.figures import Figure

BENCHES: dict[str, Callable[[], Iterator[Figure]]] = {
    "append": tables.appends,
    "branch-sqlite": history.branch_sqlite,
    "branch-postgres": history.branch_postgres,
    "cli-help": commands.help_,
    "cli-status": commands.status,
    "cli-plan-noop": commands.plan_noop,
    "commit-ms-sqlite": history.commit_ms_sqlite,
    "commit-ms-postgres": history.commit_ms_postgres,
    "commit-rate-sqlite": history.commit_rate_sqlite,
    "commit-rate-postgres": history.commit_rate_postgres,
    "gc-cold": garbage.cold,
    "gc-warm": garbage.warm,
    "ingest": ingest.ingest,
    "merge-keyed": merge.keyed,
    "mergebase": history.mergebase,
    "plan-files-cold": tables.plan_cold,
    "plan-files-warm": tables.plan_warm,
    "reprofile": profiles.reprofile,
    "rest-commit": rest.commit,
    "rest-load": rest.load,
    "rowdiff": rowdiff.rowdiff,
    "rowdiff-files": rowdiff.files,
    "s3-append": buckets.s3_append,
    "serve-durable": serving.durable,
    "serve-off": serving.off,
    "treediff": history.treediff,
    "wide": ingest.wide,
    "write": profiles.write,
}


def main() -> int:
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [name for name in BENCHES if name.startswith(prefix)]
    if not chosen:
        print(f'No bench begins with "{prefix}": expected {", ".join(BENCHES)}.', file=sys.stderr)
        return 2
    for name in chosen:
        for figure in BENCHES[name]():
            print(figure.to_line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
