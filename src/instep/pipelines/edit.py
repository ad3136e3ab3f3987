"""Sets one value in a pipeline's YAML text, and leaves every other character as it was.

A value is named as `instep plan --verbose` names it: `slice.to`, `steps.delay.seed`. The result is
validated before it is given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instep.errors import InvalidError
from instep.pipelines.config import parse_pipeline

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode, Node


@dataclass(frozen=True, slots=True)
class Edited:
    """The new text, and the value's text before and after; `before` is None if it was absent."""

    text: str
    before: str | None
    after: str


def set_value(text: str, path: str, name: str, value: str) -> Edited:
    """Returns `text` with the value called `name` set to the YAML `value`.

    Raises:
        InvalidError (kind "no-such-value"): nothing of that name can stand there.
        InvalidError (kind "not-one-value"): the value is a block of several lines.
        InvalidError (kinds "bad-yaml", "unknown-key", "bad-document"): the result is not valid.
    """
    from ruamel.yaml import YAML

    parse_pipeline(text, path)
    root: Any = YAML().compose(text)
    edited = _edited(text, root, name.split("."), name, value)
    parse_pipeline(edited.text, path)
    return edited


def _edited(text: str, node: Any, parts: list[str], name: str, value: str) -> Edited:
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if isinstance(node, SequenceNode):
        item = next((one for one in node.value if _named(one, parts[0])), None)
        if item is None or len(parts) < 2:
            known = [_step_name(one) for one in node.value]
            raise InvalidError(
                f'"{name}" names no step: expected one of {", ".join(known)}. '
                "Write steps.NAME.KEY.",
                kind="no-such-value",
                name=name,
            )
        return _edited(text, item, parts[1:], name, value)
    if not isinstance(node, MappingNode):
        raise InvalidError(
            f'"{name}" goes into a single value: expected the name of a value, as "instep plan '
            '--verbose" lists them. Correct the name.',
            kind="no-such-value",
            name=name,
        )
    found = next((item for key, item in node.value if key.value == parts[0]), None)
    if found is None:
        return _inserted(text, node, parts, value)
    if len(parts) > 1:
        return _edited(text, found, parts[1:], name, value)
    return _replaced(text, found, name, value)


def _replaced(text: str, node: Node, name: str, value: str) -> Edited:
    from ruamel.yaml.nodes import ScalarNode

    start, end = node.start_mark.index, node.end_mark.index
    before = text[start:end]
    if not isinstance(node, ScalarNode) and not getattr(node, "flow_style", False):
        raise InvalidError(
            f'"{name}" is written over several lines: expected a value on one line. Edit the file '
            "itself.",
            kind="not-one-value",
            name=name,
        )
    return Edited(text[:start] + value + text[end:], before, value)


def _inserted(text: str, node: MappingNode, parts: list[str], value: str) -> Edited:
    from ruamel.yaml.nodes import ScalarNode

    for part in reversed(parts[1:]):
        value = f"{{{part}: {value}}}"
    line = f"{parts[0]}: {value}"
    if node.flow_style:
        at = node.start_mark.index + 1
        separator = ", " if node.value else ""
        return Edited(text[:at] + line + separator + text[at:], None, value)
    _, last = node.value[-1]
    if not isinstance(last, ScalarNode) and not last.flow_style:
        _, last = node.value[0]  # a block ends where the next one begins, after its comments
    end = text.find("\n", last.end_mark.index)
    at = len(text) if end < 0 else end
    indent = " " * node.start_mark.column
    return Edited(f"{text[:at]}\n{indent}{line}{text[at:]}", None, value)


def _named(node: Any, step: str) -> bool:
    return _step_name(node) == step


def _step_name(node: Any) -> str:
    pairs = getattr(node, "value", ())
    return next((str(item.value) for key, item in pairs if key.value == "step"), "")
