"""The project folder as contents of a commit: the disk is a draft, this is how it is proposed.

`contracts/T.yaml` becomes `contract/T`; `pipelines/P.yaml` becomes `pipeline/P` with every file
that it needs: SQL, Python with the project modules that it imports (followed without running
anything), declared data files; `instep.yaml` becomes `config/instep`. Everything is parsed and
validated before the first byte is stored.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from instep.canonical import JsonObject
from instep.errors import InvalidError
from instep.history.objects import Objects
from instep.history.repository import Repository
from instep.pipelines import project
from instep.pipelines.config import PipelineConfig, SqlStep, parse_pipeline

PIPELINE_TYPE = "instep.pipeline.v1"
CONTRACT_TYPE = "instep.contract.v1"


@dataclass(frozen=True, slots=True)
class Captured:
    """Contents by key, and the bytes of every file they name, by digest."""

    contents: Mapping[str, JsonObject]
    blobs: Mapping[str, bytes]

    def store(self, objects: Objects) -> None:
        """Stores every file; a file that the lake has already costs nothing."""
        for data in self.blobs.values():
            objects.put(data)


def capture_project(folder: Path, objects: Objects) -> dict[str, JsonObject]:
    """Returns the contents of the project in `folder`, by key, after their files are stored.

    Raises:
        NotFoundError (kind "no-project").
        InvalidError: a file is missing, cannot be read, or is not valid; nothing was stored.
    """
    captured = read_project(folder)
    captured.store(objects)
    return dict(captured.contents)


def read_project(folder: Path) -> Captured:
    """Returns what `capture_project` would store, validated, and stores nothing."""
    draft = read_draft(folder)
    for path in _documents(folder, "contracts"):
        _validate_contract(folder, path)
    _validate_sql(draft)
    return draft


def read_draft(folder: Path) -> Captured:
    """Returns the project's contents; contracts and SQL are taken as they are, unread."""
    blobs: dict[str, bytes] = {}
    contents: dict[str, JsonObject] = {}
    project.load_project(folder)
    config = _read(folder, project.FILE, blobs)
    contents[project.KEY] = project.config_content(config)
    for path in _documents(folder, "contracts"):
        contents[f"contract/{PurePosixPath(path).stem}"] = _contract_content(folder, path, blobs)
    for path in _documents(folder, "pipelines"):
        content = _pipeline_content(folder, path, blobs)
        contents[f"pipeline/{PurePosixPath(path).stem}"] = content
    return Captured(contents, blobs)


def read_pipeline(folder: Path, name: str) -> tuple[PipelineConfig, Captured]:
    """Returns one pipeline of the project in `folder`, and its contents.

    Raises:
        InvalidError (kind "no-such-pipeline"): there is no such file; the nearest is named.
    """
    path = f"pipelines/{name}.yaml"
    known = [PurePosixPath(one).stem for one in _documents(folder, "pipelines")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        raise InvalidError(
            f'Pipeline "{name}" has no file {path}: expected one of {", ".join(known) or "none"}. '
            + (f'Did you mean "{near[0]}"?' if near else "Write the file, or correct the name."),
            kind="no-such-pipeline",
            pipeline=name,
        )
    blobs: dict[str, bytes] = {}
    content = _pipeline_content(folder, path, blobs)
    files = files_of(content)
    config = parse_pipeline(blobs[files[path]].decode(), path)
    return config, Captured({f"pipeline/{name}": content}, blobs)


def read_run(folder: Path, name: str) -> tuple[PipelineConfig, Captured]:
    """Returns what a run of the pipeline `name` takes from the project in `folder`.

    That is the pipeline and the contracts of the tables that it writes. Whatever else the folder
    holds may be older than the lake's: it comes by a proposal.

    Raises:
        InvalidError: as `read_pipeline`, or a contract is not valid.
    """
    config, captured = read_pipeline(folder, name)
    contents, blobs = dict(captured.contents), dict(captured.blobs)
    for table in tables_written(config):
        path = f"contracts/{table}.yaml"
        if (folder / path).is_file():
            _validate_contract(folder, path)
            contents[f"contract/{table}"] = _contract_content(folder, path, blobs)
    return config, Captured(contents, blobs)


def tables_written(config: PipelineConfig) -> tuple[str, ...]:
    """Returns the tables that a pipeline makes, in the order of its steps."""
    return tuple(step.writes for step in config.steps if isinstance(step, SqlStep))


def pipeline_file(content: JsonObject) -> str:
    """Returns the path of the configuration among the files of a pipeline's content."""
    return next(path for path in files_of(content) if path.startswith("pipelines/"))


def load_pipeline(repo: Repository, content: JsonObject) -> PipelineConfig:
    """Returns the pipeline that the lake keeps in `content`."""
    path = pipeline_file(content)
    return parse_pipeline(repo.objects.get(files_of(content)[path]).decode(), path)


def files_of_step(
    config: PipelineConfig, name: str, content: JsonObject, read: Mapping[str, bytes]
) -> dict[str, str]:
    """Returns the files that reach one step, with their digests: what its code digest is made of.

    `read` gives the bytes of the pipeline's files by digest.
    """
    step = next(step for step in config.steps if step.name == name)
    files = files_of(content)
    if isinstance(step, SqlStep):
        return {step.sql: files[step.sql]}
    needed = {step.path, *config.data, *_init_files(step.path, files)}
    waiting = list(needed)
    while waiting:
        path = waiting.pop()
        if not path.endswith(".py"):
            continue
        for found in _imports(read[files[path]].decode(), path, files):
            if found not in needed:
                needed.add(found)
                waiting.append(found)
    return {path: files[path] for path in sorted(needed)}


def _pipeline_content(folder: Path, path: str, blobs: dict[str, bytes]) -> JsonObject:
    files = {path: _read(folder, path, blobs)}
    config = parse_pipeline(blobs[files[path]].decode(), path)
    stem = PurePosixPath(path).stem
    if config.name != stem:
        raise InvalidError(
            f'{path}:1: the pipeline is called "{config.name}": expected "{stem}", as its file. '
            "Rename one of the two.",
            kind="bad-document",
            path=path,
        )
    for name, origin in _referenced(config):
        _add(folder, name, origin, files, blobs)
    for step in config.steps:
        if not isinstance(step, SqlStep):
            _check_function(_decoded(blobs[files[step.path]], step.path), step.path, step.function)
    return {"type": PIPELINE_TYPE, "files": dict(sorted(files.items()))}


def _referenced(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    origins = {value.name: value.origin for value in config.values}
    for step in config.steps:
        if isinstance(step, SqlStep):
            yield step.sql, origins[f"steps.{step.name}.sql"]
        else:
            yield step.path, origins[f"steps.{step.name}.train"]
    for path in config.data:
        yield path, origins["data"]


def _add(
    folder: Path, path: str, origin: str, files: dict[str, str], blobs: dict[str, bytes]
) -> None:
    waiting = [(path, origin)]
    while waiting:
        name, named_at = waiting.pop()
        if name in files:
            continue
        _check_inside(folder, name, named_at)
        files[name] = _read(folder, name, blobs, named_at)
        if name.endswith(".py"):
            text = _decoded(blobs[files[name]], name)
            on_disk = _OnDisk(folder)
            for needed in (*_init_files(name, on_disk), *_imports(text, name, on_disk)):
                waiting.append((needed, name))


class _OnDisk:
    """Answers `path in folder`, as the mapping of captured files does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, path: object) -> bool:
        return (self._folder / str(path)).is_file()


def _imports(text: str, path: str, files: _OnDisk | Mapping[str, str]) -> Iterator[str]:
    """Yields the project files that a Python file imports, anywhere in it, by its syntax."""
    try:
        tree = ast.parse(text, path)
    except SyntaxError as error:
        raise InvalidError(
            f"{path}:{error.lineno or 1}: this is not Python: {error.msg}. Expected a module that "
            "can be imported. Correct the line.",
            kind="bad-python",
            path=path,
        ) from None
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _absolute(module, level, path)
                modules = [base, *(f"{base}.{alias.name}".strip(".") for alias in names)]
            case _:
                continue
        for module in modules:
            yield from _module_files(module, files)


def _check_function(text: str, path: str, name: str) -> None:
    """Holds that a Python file defines a function, as far as its syntax tells.

    Raises:
        InvalidError (kind "no-such-function").
    """
    defined: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(text, path)]
    while waiting:
        match waiting.pop():
            case ast.FunctionDef(name=found) | ast.ClassDef(name=found):
                defined.add(found)
            case ast.alias(name="*"):
                return  # what it brings is known only when it runs
            case ast.alias(name=found, asname=renamed):
                defined.add(renamed or found)
            case ast.Name(id=found, ctx=ast.Store()):
                defined.add(found)
            case node:
                waiting += ast.iter_child_nodes(node)
    if name not in defined:
        raise no_such_function(path, name, defined)


def no_such_function(path: str, name: str, defined: Iterable[str]) -> InvalidError:
    """Returns the error for a step's function that its file does not define."""
    public = sorted(one for one in defined if not one.startswith("_"))
    near = difflib.get_close_matches(name, public, n=1, cutoff=0.4)
    return InvalidError(
        f'{path} has no function "{name}": expected one of {", ".join(public) or "none"}. '
        + (f'Did you mean "{near[0]}"?' if near else "Correct the name after the colon."),
        kind="no-such-function",
        path=path,
        name=name,
    )


def _absolute(module: str | None, level: int, path: str) -> str:
    if level == 0:
        return module or ""
    parents = PurePosixPath(path).parts[:-level]
    return ".".join([*parents, *([module] if module else [])])


def _module_files(module: str, files: _OnDisk | Mapping[str, str]) -> Iterator[str]:
    parts = [part for part in module.split(".") if part]
    for depth in range(1, len(parts) + 1):
        stem = "/".join(parts[:depth])
        for candidate in (f"{stem}/__init__.py", f"{stem}.py"):
            if candidate in files:
                yield candidate


def _init_files(path: str, files: _OnDisk | Mapping[str, str]) -> Iterator[str]:
    for parent in PurePosixPath(path).parents:
        candidate = f"{parent}/__init__.py"
        if str(parent) != "." and candidate in files:
            yield candidate


def _check_inside(folder: Path, path: str, origin: str) -> None:
    inside = (folder / path).resolve().is_relative_to(folder.resolve())
    if inside and not PurePosixPath(path).is_absolute():
        return
    raise InvalidError(
        f'{origin}: "{path}" is outside the project: expected a path below {folder}. '
        "Copy the file into the project.",
        kind="file-outside-project",
        path=path,
    )


def _read(folder: Path, path: str, blobs: dict[str, bytes], origin: str = "") -> str:
    try:
        data = (folder / path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        near = difflib.get_close_matches(path, _siblings(folder, path), n=1, cutoff=0.5)
        mend = f'Did you mean "{near[0]}"?' if near else "Write it, or correct the name."
        raise InvalidError(
            f'{origin or path}: file "{path}" does not exist: expected it in the project. {mend}',
            kind="missing-file",
            path=path,
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return digest


def _siblings(folder: Path, path: str) -> list[str]:
    parent = (folder / path).parent
    if not parent.is_dir():
        return []
    return [str(one.relative_to(folder)) for one in parent.iterdir() if one.is_file()]


def _documents(folder: Path, kind: str) -> list[str]:
    found = sorted((folder / kind).glob("*.yaml")) if (folder / kind).is_dir() else []
    return [f"{kind}/{path.name}" for path in found]


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidError(
            f"{path}: this is not UTF-8: expected a text file. Save it as UTF-8.",
            kind="bad-python",
            path=path,
        ) from None


def _contract_content(folder: Path, path: str, blobs: dict[str, bytes]) -> JsonObject:
    return {"type": CONTRACT_TYPE, "blob": _read(folder, path, blobs)}


def _validate_contract(folder: Path, path: str) -> None:
    from instep.contracts.document import parse

    contract = parse(_decoded((folder / path).read_bytes(), path), path)
    stem = PurePosixPath(path).stem
    if contract.table != stem:
        raise InvalidError(
            f'{path}:1: the contract is of table "{contract.table}": expected "{stem}", as '
            "its file. Rename one of the two.",
            kind="bad-document",
            path=path,
        )


def _validate_sql(draft: Captured) -> None:
    from instep.pipelines.lineage import parse_select, refuse_outside

    for content in draft.contents.values():
        if content.get("type") != PIPELINE_TYPE:
            continue
        for path, digest in files_of(content).items():
            if path.endswith(".sql"):
                sql = _decoded(draft.blobs[digest], path)
                refuse_outside(parse_select(sql, path), sql, path)


def files_of(content: JsonObject) -> dict[str, str]:
    """Returns the files of a pipeline's content, with their digests."""
    match content.get("files"):
        case Mapping() as files:
            return {str(path): str(digest) for path, digest in files.items()}
        case _:
            return {}
