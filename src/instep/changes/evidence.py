"""What differs between two commits, computed: the same for `diff` and for a change's evidence.

Each changed key is described by a sentence or more and by facts. Nothing here is typed by hand, and
what could not be computed says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from instep.canonical import Json, JsonObject
from instep.changes.key_evidence import KeyEvidence, act_of
from instep.changes.renamed_tables import new_names
from instep.findings import Finding, Severity
from instep.history.repository import Repository
from instep.history.tree import Difference, kind_of

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that differs from commit `before` to commit `after`, by key."""

    before: str
    after: str
    keys: tuple[KeyEvidence, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for key in self.keys for finding in key.findings)

    def to_json(self) -> dict[str, Json]:
        return {
            "before": self.before,
            "after": self.after,
            "keys": [key.to_json() for key in self.keys],
            "findings": [finding.to_json() for finding in self.findings],
        }


def compare(repo: Repository, before: str, after: str, say: Say = lambda text: None) -> Comparison:
    """Returns what differs; reads only the contents that differ. `say` hears of each key.

    A table under a new name is compared with what it was under the former one.
    """
    keys = []
    for difference, names in _by_table(repo.diff(before, after)):
        if difference.key.startswith("table/"):
            say(f"comparing {difference.key}")
        if names and difference.after is None:
            keys.append(KeyEvidence(difference.key, "removed", names))
            continue
        found = _describe(repo, after, difference)
        keys.append(replace(found, sentences=(*names, *found.sentences)))
    return Comparison(before, after, tuple(keys))


def _by_table(found: Iterable[Difference]) -> Iterator[tuple[Difference, tuple[str, ...]]]:
    """Yields what differs, with what is to be said of names.

    A renamed table is set against what it was; what has its former name now is new.
    """
    by_key = {one.key: one for one in found}
    former = new_names(by_key)
    latter = {before: key for key, before in former.items()}
    for key, one in by_key.items():
        names = (f"is {latter[key]} now",) if key in latter else ()
        if key in former:
            names = (*names, f"was {former[key]} before, and is the same table")
            yield replace(one, before=by_key[former[key]].before), names
        else:
            yield replace(one, before=None if names else one.before), names


def reads_of(comparison: Comparison) -> tuple[str, ...]:
    """Returns the keys of main that the evidence relied on, besides those that changed."""
    changed = {key.key for key in comparison.keys}
    reads = {"config/instep"}
    for key in changed:
        kind, _, name = key.partition("/")
        # A table is held against its contract, and a contract against its table.
        reads |= {f"contract/{name}"} if kind == "table" else set()
        reads |= {f"table/{name}"} if kind == "contract" else set()
    return tuple(sorted(reads - changed))


def _describe(repo: Repository, after: str, difference: Difference) -> KeyEvidence:
    match kind_of(difference.key):
        case "table":
            from instep.changes.table_evidence import describe_table

            return describe_table(repo, after, difference)
        case "model":
            from instep.changes.model_evidence import describe_model

            return describe_model(repo, difference)
        case "contract":
            return _describe_contract(repo, after, difference)
        case "pipeline":
            return _describe_pipeline(repo, difference)
        case "config":
            return _describe_config(repo, difference)
        case _:
            return KeyEvidence(difference.key, act_of(difference), ())


def _describe_contract(repo: Repository, commit: str, difference: Difference) -> KeyEvidence:
    from instep.changes.table_evidence import check_against
    from instep.contracts.document import parse

    path = f"{difference.key}.yaml"
    before, after = (
        frozenset[str]()
        if content is None
        else _terms(parse(repo.objects.text(str(content["blob"])), path).to_json())
        for content in (difference.before, difference.after)
    )
    if difference.before is None:
        sentences = [f"{len(after)} terms"]
    else:
        sentences = [f"+ {term}" for term in sorted(after - before)]
        sentences += [f"- {term}" for term in sorted(before - after)]
    return KeyEvidence(
        difference.key,
        act_of(difference),
        tuple(sentences or ["only words changed, no term"]),
        {"added": sorted(after - before), "removed": sorted(before - after)},
        check_against(repo, commit, difference.key.partition("/")[2])
        if difference.after
        else _left_without(repo, commit, difference.key.partition("/")[2]),
    )


def _left_without(repo: Repository, commit: str, table: str) -> tuple[Finding, ...]:
    if repo.find(commit, f"table/{table}") is None:
        return ()
    return (
        Finding(
            "no-contract",
            f"table/{table}",
            Severity.WARNING,
            f"table/{table} is left without a contract: nothing that arrives will be checked.",
        ),
    )


def _terms(contract: JsonObject) -> frozenset[str]:
    """Returns each promise of a contract as one sentence."""
    found = {
        f"{name}: {json.dumps(contract[name], ensure_ascii=False)}"
        for name in ("key", "event_time", "merge_policy", "max_quarantined")
        if contract.get(name)
    }
    for column in _objects(contract.get("columns")):
        terms = column.get("terms")
        found.add(f"{column['name']} is {column.get('type', 'there')}")
        for term in terms if isinstance(terms, list) else ():
            found.add(f"{column['name']} {term}")
        if column.get("unit"):
            found.add(f"{column['name']} is in {column['unit']}")
    for term in _objects(contract.get("batch")):
        found.add(str(term["term"]))
    return frozenset(found)


def _describe_pipeline(repo: Repository, difference: Difference) -> KeyEvidence:
    from instep.pipelines.capture import load_pipeline

    before, after = (
        {} if content is None else load_pipeline(repo, content).resolved()
        for content in (difference.before, difference.after)
    )
    old, new = _files(difference.before), _files(difference.after)
    code = sorted(
        path
        for path in old.keys() | new.keys()
        if old.get(path) != new.get(path) and not path.startswith("pipelines/")
    )
    sentences = list(_value_changes(before, after)) if difference.before else []
    if code:
        sentences.append(f"files: {', '.join(code)}")
    facts: dict[str, Json] = {"values": _changed_values(before, after), "files": code}
    return KeyEvidence(
        difference.key,
        act_of(difference),
        tuple(sentences or ["only words changed, no value"]),
        facts,
    )


def _describe_config(repo: Repository, difference: Difference) -> KeyEvidence:
    before, after = (
        {} if content is None else _flat_yaml(repo.objects.text(str(content["blob"])))
        for content in (difference.before, difference.after)
    )
    sentences = tuple(_value_changes(before, after))
    facts: dict[str, Json] = {"values": _changed_values(before, after)}
    return KeyEvidence(difference.key, act_of(difference), sentences, facts)


def _value_changes(before: JsonObject, after: JsonObject) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        if name not in before:
            yield f"{name}: {_shown(after[name])} (new)"
        elif name not in after:
            yield f"{name}: {_shown(before[name])} is gone"
        else:
            yield f"{name}: {_shown(before[name])} becomes {_shown(after[name])}"


def _changed_values(before: JsonObject, after: JsonObject) -> dict[str, Json]:
    return {
        name: [before.get(name), after.get(name)]
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _flat_yaml(text: str) -> dict[str, Json]:
    from instep.documents import load_yaml, plain

    return dict(_flat(plain(load_yaml(text, "instep.yaml")), ""))


def _flat(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    match value:
        case Mapping() if value:
            for name, item in value.items():
                yield from _flat(item, f"{path}.{name}" if path else name)
        case list() if value:
            yield path, ", ".join(str(item) for item in value)
        case _:
            yield path, value


def _files(content: JsonObject | None) -> dict[str, str]:
    files = content.get("files") if content else None
    if not isinstance(files, Mapping):
        return {}
    return {str(path): str(digest) for path, digest in files.items()}


def _objects(value: Json) -> Sequence[JsonObject]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(item for item in value if isinstance(item, Mapping))


def _shown(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)
