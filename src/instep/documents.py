"""YAML text to a typed record; every fault names file, line, column and the nearest known key.

All faults of a document are gathered into one error. Nothing is executed, no tag is honoured, and
a key twice is an error.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin

from instep.errors import InvalidError

if TYPE_CHECKING:
    from pydantic import BaseModel

Shape = TypeVar("Shape", bound="BaseModel")
Place = tuple[str | int, ...]

Tree: TypeAlias = Any  # ruamel's tree, which has no types of its own


def read_document(text: str, path: str, shape: type[Shape]) -> Shape:
    """Returns the record that `text` describes; `path` is what messages call the document.

    Raises:
        InvalidError (kind "bad-yaml"): it is not YAML, or not a mapping.
        InvalidError (kind "unknown-key"): every fault is a key that `shape` does not have.
        InvalidError (kind "bad-document"): a value is missing or of the wrong kind.
    """
    from pydantic import ValidationError

    tree = load_yaml(text, path)
    try:
        return shape.model_validate(plain(tree))
    except ValidationError as error:
        faults = tuple(_faults(error, tree, path, shape))
        unknown = all(fault["type"] == "extra_forbidden" for fault in error.errors())
        raise InvalidError(
            "\n".join(faults),
            kind="unknown-key" if unknown else "bad-document",
            path=path,
            faults=faults,
        ) from None


def load_yaml(text: str, path: str) -> Any:  # ruamel's tree, which knows lines and columns
    """Returns `text` as ruamel's round-trip mapping.

    Raises:
        InvalidError (kind "bad-yaml").
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        # A key written twice is quoted with both its values, which may be secrets.
        problem = str(error.problem or error.context).partition(" with value ")[0]
        raise InvalidError(
            f"{place}: {problem}: expected YAML. Correct the line.",
            kind="bad-yaml",
            path=path,
        ) from None
    except YAMLError as error:
        raise InvalidError(
            f"{path}: {error}: expected YAML. Correct the file.", kind="bad-yaml", path=path
        ) from None
    except ValueError as error:  # a date that no calendar has, which ruamel does not place
        raise InvalidError(
            f"{_impossible_date(text, path)}: {error}: expected a date of the calendar. "
            "Correct it.",
            kind="bad-yaml",
            path=path,
        ) from None
    if not isinstance(tree, Mapping):
        raise InvalidError(
            f"{path}:1:1: the document is {_kind(tree)}: expected a mapping of keys to values. "
            "Begin with a key.",
            kind="bad-yaml",
            path=path,
        )
    return tree


def plain(value: Any) -> Any:  # a tree of unknown shape, until pydantic has seen it
    """Returns a ruamel tree as dicts, lists and scalars."""
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case _:
            return value


def position(tree: Tree, place: Place) -> tuple[int, int]:  # a ruamel tree
    """Returns the line and column (from 1) of the key or item at `place`, or of its parent."""
    line, column = 1, 1
    for step in place:
        marks = getattr(tree, "lc", None)
        if marks is None:
            break
        if isinstance(tree, Mapping) and step in tree:
            row, col = marks.key(step)
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            row, col = marks.item(step)
        else:
            continue
        line, column = row + 1, col + 1
        tree = tree[step]
    return line, column


def _faults(error: Any, tree: Tree, path: str, shape: type[BaseModel]) -> Iterator[str]:
    for fault in error.errors():
        place: Place = fault["loc"]
        line, column = position(tree, place)
        where = f"{path}:{line}:{column}"
        name = str(place[-1]) if place else ""
        known = known_keys(shape, place[:-1])
        match fault["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                mend = f'Did you mean "{near[0]}"?' if near else "Remove it, or correct its name."
                yield (
                    f'{where}: key "{name}" is not known: expected one of {", ".join(known)}. '
                    f"{mend}"
                )
            case "missing":
                yield f'{where}: key "{name}" is missing: it is required here. Add it.'
            case "value_error":
                yield f'{where}: "{name}": {fault["ctx"]["error"]}'
            case _:
                yield (
                    f'{where}: "{name}" is {fault["input"]!r}: {_lowered(fault["msg"])}. '
                    "Correct the value."
                )


def known_keys(shape: Any, place: Place) -> tuple[str, ...]:  # any annotation
    """Returns the keys that `shape` knows at `place`, in the order of their definition."""
    shapes = [shape]
    for step in place:
        shapes = [inner for one in shapes for inner in _inside(one, step)] or shapes
    found: dict[str, None] = {}
    for one in shapes:
        for model in _models(one):
            for name, field in model.model_fields.items():
                found[field.alias or name] = None
    return tuple(found)


def _impossible_date(text: str, path: str) -> str:
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r"(\d{4})-(\d\d?)-(\d\d?)", line):
            try:
                date(int(found[1]), int(found[2]), int(found[3]))
            except ValueError:
                return f"{path}:{number}:{found.start() + 1}"
    return path


def _inside(shape: Any, step: str | int) -> Iterator[Any]:  # a field's annotation
    tagged = [option for option in _alternatives(shape) if _tag(option) == step]
    if tagged:
        yield from tagged
        return
    for model in _models(shape):
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                yield field.annotation
    for option in _options(shape):
        origin = get_origin(option)
        if origin in (list, tuple) and isinstance(step, int):
            yield get_args(option)[0]
        elif origin in (dict, Mapping) and isinstance(step, str):
            yield get_args(option)[1]


def _alternatives(shape: Any) -> Iterator[Any]:  # a field's annotation
    origin = get_origin(shape)
    if origin is Annotated and get_origin(get_args(shape)[0]) in (Union, types.UnionType):
        shape = get_args(shape)[0]
    if get_origin(shape) in (Union, types.UnionType):
        yield from get_args(shape)


def _tag(option: Any) -> str | None:  # a field's annotation
    if get_origin(option) is not Annotated:
        return None
    tags = (getattr(mark, "tag", None) for mark in get_args(option)[1:])
    return next((tag for tag in tags if isinstance(tag, str)), None)


def _options(shape: Any) -> Iterator[Any]:  # a field's annotation
    origin = get_origin(shape)
    if origin is Annotated:
        yield from _options(get_args(shape)[0])
    elif origin in (Union, types.UnionType):
        for option in get_args(shape):
            yield from _options(option)
    else:
        yield shape


def _models(shape: Any) -> Iterator[type[BaseModel]]:  # a field's annotation
    from pydantic import BaseModel

    for option in _options(shape):
        if isinstance(option, type) and issubclass(option, BaseModel):
            yield option


def _kind(value: object) -> str:
    match value:
        case None:
            return "empty"
        case list():
            return "a list"
        case _:
            return f"the value {value!r}"


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
