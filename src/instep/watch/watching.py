"""Watches an environment: every released model held against the events that have come since.

Reads the lake and the prediction log; publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from instep.canonical import Json, JsonObject, from_microseconds
from instep.clock import Window, format_instant
from instep.errors import InvalidError, NotFoundError
from instep.history.ancestry import commits_beyond
from instep.history.commits import first_parents
from instep.history.operations import operations
from instep.history.repository import MAIN, Repository
from instep.models.bundle import LoadedModel, read_bundle
from instep.releases.environments import has_earlier
from instep.serving.log_files import read_predictions
from instep.watch.alert import Alert, Receipts, raise_alert
from instep.watch.comparison import (
    Comparison,
    LeftOut,
    Scored,
    compare_with_baseline,
    cut_events,
    score_events,
)
from instep.watch.receipts import join_receipts
from instep.watch.recompute import compute_events, find_maker, tables_read

Progress = Callable[[str], None]

_COMMITS = 200
"""Commits looked back through for those that brought the watched events."""

_SHOWN = 4
"""Commits named in the alert; the rest are counted."""


@dataclass(frozen=True, slots=True)
class ModelWatch:
    """One released model against the events of `data` that came after it was trained."""

    model: str
    version: str
    digest: str
    run: str
    commit: str
    data: str
    comparison: Comparison
    receipts: Receipts
    alert: Alert

    def to_json(self) -> dict[str, Json]:
        return {
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "run": self.run,
            "commit": self.commit,
            "data_commit": self.data,
            "comparison": self.comparison.to_json(),
            "receipts": self.receipts.to_json(),
            **self.alert.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Watch:
    """All models of one environment."""

    environment: str
    models: tuple[ModelWatch, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "environment": self.environment,
            "models": [model.to_json() for model in self.models],
        }

    def to_text(self) -> str:
        return "\n\n".join(_text(self.environment, model) for model in self.models)


def watch_environment(
    repo: Repository,
    environment: str,
    progress: Progress,
    *,
    data: str = MAIN,
    only: str | None = None,
    until: datetime | None = None,
) -> Watch:
    """Returns how the models of `environment` do on the events of `data` up to `until`.

    `only` names one model.

    Raises:
        NotFoundError (kind "no-such-ref"), (kind "nothing-to-serve"): no model to watch.
        InvalidError (kind "nothing-to-watch"): no events with known outcomes have come since.
    """
    commit, data_commit = repo.resolve(environment), repo.resolve(data)
    contents = {
        key.partition("/")[2]: content for key, content in repo.entries(commit, "model").items()
    }
    names = [name for name in contents if only in (None, name)]
    if not names:
        raise NotFoundError(
            f'"{environment}" has no model{f" {only}" if only else ""}: expected one of '
            f"{', '.join(contents) or 'none yet'}. Release one, or correct the name.",
            kind="nothing-to-serve",
            environment=environment,
        )
    return Watch(
        environment,
        tuple(
            _watch(repo, environment, commit, data_commit, name, contents[name], until, progress)
            for name in names
        ),
    )


def _watch(
    repo: Repository,
    environment: str,
    commit: str,
    data: str,
    name: str,
    content: JsonObject,
    until: datetime | None,
    progress: Progress,
) -> ModelWatch:
    model = _load(repo, content)
    source, step = find_maker(repo, content, name)
    start = model.card.slice.end
    horizon = until or max(repo.clock(), model.card.intended.end)
    since = Window(start, horizon)
    # A table that is read whole brings rows of the time that was trained on.
    table, left_out = cut_events(
        compute_events(repo, data, source, step, since, progress), model.card.time, since
    )
    progress(f"{name}: score {table.num_rows:,} events")
    scored = score_events(model, table)
    window = _covered(scored, start, model, left_out)
    comparison = compare_with_baseline(model, scored, window, left_out)
    digest = str(content["digest"])
    lives = _lives(repo, environment, name)
    answers = read_predictions(
        repo.here / "predictions", since=next((at for at, one in lives if one == digest), None)
    )
    receipts = join_receipts(answers, model.card, environment, digest, window, scored)
    brought_by = tuple(_brought_by(repo, commit, data, tables_read(source)))
    return ModelWatch(
        model=name,
        version=str(content["version"]),
        digest=digest,
        run=str(content["run"]),
        commit=commit,
        data=data,
        comparison=comparison,
        receipts=receipts,
        alert=raise_alert(
            model.card,
            comparison,
            environment,
            source.config.name,
            receipts,
            brought_by,
            has_version_before=has_earlier(repo, environment, f"model/{name}"),
        ),
    )


def _load(repo: Repository, content: JsonObject) -> LoadedModel:
    files = content["files"]
    assert isinstance(files, Mapping)
    return read_bundle({name: repo.objects.get(str(digest)) for name, digest in files.items()})


def _lives(repo: Repository, environment: str, model: str) -> list[tuple[datetime, str]]:
    """Returns the digests of `model` that were live, each with when a move brought it, in order."""
    with repo.store.reading() as tx:
        moves = [(entry.at, entry.after) for entry in operations(tx, environment) if entry.after]
    found = [(at, repo.find(commit, f"model/{model}")) for at, commit in moves]
    return [(at, str(content["digest"])) for at, content in found if content is not None]


def _covered(scored: Scored, start: datetime, model: LoadedModel, left_out: LeftOut) -> Window:
    """Returns the window that the events cover, to the end of their last UTC day."""
    if not len(scored.time):
        earlier = f", only {left_out.before:,} rows of before" if left_out.before else ""
        raise InvalidError(
            f'No events have come since model "{model.card.model}" was trained '
            f"({format_instant(start)}){earlier}: expected some to watch it on. Ingest newer data "
            "first.",
            kind="nothing-to-watch",
        )
    last = from_microseconds(int(scored.time.max()))
    midnight = last.replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(start, midnight + timedelta(days=1))


def _brought_by(repo: Repository, commit: str, data: str, tables: frozenset[str]) -> Iterator[str]:
    """Yields sentences about the commits that changed `tables` after what was released."""
    found = list(_commits_since(repo, commit, data, tables))
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield f"{len(found) - _SHOWN} more commits changed these tables before."


def _commits_since(
    repo: Repository, commit: str, data: str, tables: frozenset[str]
) -> Iterator[str]:
    with repo.store.reading() as tx:
        newer = commits_beyond(tx, data, commit)
        for one in first_parents(tx, data, _COMMITS):
            if one.id not in newer:
                return  # and neither are those before it
            keys = {d.key for d in repo.diff(one.parents[0], one.id)} if one.parents else set()
            changed = sorted(key.partition("/")[2] for key in keys if _names(key, tables))
            if changed:
                yield (
                    f"Commit {one.id[:12]} ({one.origin}, by {one.author}) changed "
                    f"{', '.join(changed)}: {one.message}."
                )


def _names(key: str, tables: frozenset[str]) -> bool:
    kind, _, name = key.partition("/")
    return kind == "table" and name in tables


def _text(environment: str, watch: ModelWatch) -> str:
    alert = watch.alert
    lines: Sequence[str] = (
        f"{environment}: model {watch.model} version {watch.version}, against data commit "
        f"{watch.data[:12]}: {alert.finding.kind} ({alert.finding.severity})",
        *(f"  {sentence}" for sentence in alert.sentences),
        "You can:",
        *(f"  - {decision}:\n      {command}" for decision, command in alert.decisions),
    )
    return "\n".join(lines)
