"""What an environment serves now: its commit, and the models of that commit, loaded and guarded.

A `ServedCommit` is a value that is swapped whole, so an answer never mixes two commits. Models,
contracts and cards are read from the lake only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from instep.canonical import Json, JsonObject
from instep.contracts.document import parse
from instep.errors import InvalidError, NotFoundError
from instep.history.refs import RefKind, get_ref
from instep.history.repository import Repository
from instep.pipelines.config import parse_pipeline
from instep.serving.guard import Guard, Plain, Rule
from instep.serving.origins import Documents, terms_of, trained_on
from instep.serving.records import Source
from instep.tables.content import TableContent
from instep.tables.read import schema_of

if TYPE_CHECKING:
    from instep.models.bundle import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """One loaded model version, where it came from, and what it may be asked."""

    source: Source
    guard: Guard
    bundle: LoadedModel
    content: JsonObject

    def predict(self, columns: Mapping[str, Sequence[Plain | None]]) -> Sequence[float]:
        """Answers several rows, given as columns, in their order."""
        scores: list[float] = self.bundle.predict(columns).tolist()
        return scores

    def to_json(self) -> dict[str, Json]:
        source, guard = self.source, self.guard
        return {
            "model": source.model,
            "version": source.version,
            "commit": source.commit,
            "environment": source.environment,
            "digest": source.digest,
            "key": list(guard.key),
            "key_types": dict(guard.key_types),
            "features": [rule.feature.to_json() for rule in guard.rules],
            "terms": {
                rule.feature.name: [
                    f"{term.table}: {sentence}"
                    for term in rule.terms
                    for sentence in term.column.sentences()
                ]
                for rule in guard.rules
                if rule.terms
            },
            "intended_for": str(guard.intended) if guard.intended else None,
            "outside": "refuse" if guard.refuses_outside else "answer",
            "outside_period": "refuse" if guard.refuses_outside_period else "answer",
        }


@dataclass(frozen=True, slots=True, eq=False)
class ServedCommit:
    """One commit as it is served."""

    environment: str
    commit: str
    models: Mapping[str, ServedModel]

    def model(self, name: str) -> ServedModel:
        """Returns the model called `name`.

        Raises:
            NotFoundError (kind "no-such-model").
        """
        found = self.models.get(name)
        if found is None:
            raise NotFoundError(
                f'Model "{name}" is not live in "{self.environment}": expected one of '
                f"{', '.join(self.models)}. Correct the name, or release the model.",
                kind="no-such-model",
                model=name,
            )
        return found


def load_served(
    repo: Repository, environment: str, before: ServedCommit | None = None
) -> ServedCommit:
    """Loads what `environment` points to now; models that `before` has already are kept.

    Raises:
        NotFoundError (kind "no-such-ref"), InvalidError (kind "not-an-environment").
        NotFoundError (kind "nothing-to-serve"): its commit has no model.
        RefusedError (kind "untrusted-model"), InternalError (kind "damaged-bundle"): as loading.
    """
    commit = environment_commit(repo, environment)
    contents = repo.entries(commit, "model")
    if not contents:
        raise NotFoundError(
            f'"{environment}" is at commit {commit[:12]}, which has no model: expected one to '
            "serve. Run a pipeline that trains one, merge it, and release.",
            kind="nothing-to-serve",
            environment=environment,
        )
    documents = _documents(repo, commit)
    models = {}
    for key, content in contents.items():
        name = key.removeprefix("model/")
        source = Source(environment, commit, name, str(content["version"]), str(content["digest"]))
        known = before.models.get(name) if before else None
        bundle = (
            known.bundle
            if known is not None and known.content == content
            else _bundle(repo, content)
        )
        guard = _guard(bundle, documents, name, _key_types(repo, commit, documents, name))
        models[name] = ServedModel(source, guard, bundle, content)
    return ServedCommit(environment, commit, models)


def environment_commit(repo: Repository, environment: str) -> str:
    """Returns the commit that `environment` points to; one row by its key.

    Raises:
        NotFoundError (kind "no-such-ref"), InvalidError (kind "not-an-environment").
    """
    with repo.store.reading() as tx:
        ref = get_ref(tx, environment)
    if ref.kind is not RefKind.ENVIRONMENT:
        raise InvalidError(
            f'"{environment}" is a {ref.kind}: expected an environment, since consumers read what '
            'was released. Release it, then serve the environment, such as "prod".',
            kind="not-an-environment",
            ref=environment,
        )
    return ref.commit


def _bundle(repo: Repository, content: JsonObject) -> LoadedModel:
    from instep.models.bundle import read_bundle

    files = content["files"]
    assert isinstance(files, Mapping)
    return read_bundle({name: repo.objects.get(str(digest)) for name, digest in files.items()})


def _guard(
    bundle: LoadedModel, documents: Documents, model: str, types: Mapping[str, str]
) -> Guard:
    card = bundle.card
    return Guard(
        rules=tuple(
            Rule(feature, terms_of(documents, model, feature.name))
            for feature in bundle.signature.features
        ),
        key=card.key,
        key_types={name: types[name.lower()] for name in card.key if name.lower() in types},
        intended=card.intended,
        refuses_outside=card.outside == "refuse",
        refuses_outside_period=card.outside_period == "refuse",
    )


def _key_types(repo: Repository, commit: str, documents: Documents, model: str) -> dict[str, str]:
    """Returns the types of the columns that a model's key may name; none without its table."""
    table = trained_on(documents, model)
    content = repo.find(commit, f"table/{table}") if table is not None else None
    if content is None:
        return {}
    schema = schema_of(repo.root, TableContent.from_content(content))
    return {column.name.lower(): column.type for column in schema.columns}


def _documents(repo: Repository, commit: str) -> Documents:
    contracts = {}
    for key, content in repo.entries(commit, "contract").items():
        text = repo.objects.get(str(content["blob"])).decode()
        contracts[key.removeprefix("contract/")] = parse(text, key)
    pipelines = []
    for content in repo.entries(commit, "pipeline").values():
        files = content["files"]
        assert isinstance(files, Mapping)
        texts = {name: repo.objects.text(str(digest)) for name, digest in files.items()}
        pipelines += [
            (parse_pipeline(text, name), texts)
            for name, text in texts.items()
            if name.startswith("pipelines/")
        ]
    columns = {table: contract.names for table, contract in contracts.items()}
    for key, content in repo.entries(commit, "table").items():
        schema = schema_of(repo.root, TableContent.from_content(content))
        columns[key.removeprefix("table/")] = schema.names
    return Documents(contracts, columns, pipelines)
