"""The documentation cannot fall behind: what exists is documented, and what is shown runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import BaseModel

from instep import errors
from instep.cli.main import COMMANDS, cli
from instep.contracts.document import parse as parse_contract
from instep.pipelines.config import parse_pipeline
from instep.pipelines.project import parse_project
from instep.pipelines.shapes import PipelineShape, ProjectShape

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "instep"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHARED = {"--json", "--as", "--project", "--help"}
"""Options of nearly every command, documented once at the top of the page."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """Returns the sections of a page by their heading, such as "instep run"."""
    parts = re.split(r"^## `?([^`\n]+)`?$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def leaves(name: str) -> Iterator[tuple[str, click.Command]]:
    """Yields a command, or each command of a group, with the words that call it."""
    found = command(name)
    if isinstance(found, click.Group):
        for inner, one in found.commands.items():
            yield f"{name} {inner}", one
    else:
        yield name, found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_all_its_options_and_an_example(name: str) -> None:
    text = sections(page("commands.md")).get(f"instep {name}")
    assert text is not None, f"docs/commands.md has no section for instep {name}"
    for words, one in leaves(name):
        assert re.search(rf"^ *\$ instep {words}\b", text, re.MULTILINE), f"{words}: no example"
        for parameter in one.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                shown = [option for option in parameter.opts if option.startswith("--")]
                known = any(f"`{option}" in text or option in SHARED for option in shown)
                assert known, f"instep {words} {shown} is not documented"


def test_every_documented_command_exists() -> None:
    documented = {head for head in sections(page("commands.md")) if head.startswith("instep ")}
    assert documented == {f"instep {name}" for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_shows_an_example(name: str) -> None:
    for words, one in leaves(name):
        text = one.get_help(click.Context(one, info_name=f"instep {words}"))
        assert f"Example:  instep {words}" in text, f"instep {words} --help shows no example"


def test_the_shared_options_are_documented() -> None:
    beginning = page("commands.md").partition("\n## ")[0]
    assert all(f"`{option}" in beginning for option in SHARED)


def test_every_configuration_key_is_documented_and_no_other() -> None:
    text = page("configuration.md")
    documented = set(re.findall(r"^\| `([\w.<>\[\]]+)` \|", text, re.MULTILINE))
    known = {*keys(ProjectShape), *keys(PipelineShape), *custom_properties()}
    assert known - documented == set(), "not documented"
    assert documented - known == set(), "documented, but not known"


def keys(shape: type[BaseModel], before: str = "") -> Iterator[str]:
    """Yields every key of a shape as "steps[].windows.train"; `<name>` stands for any name."""
    for name, field in shape.model_fields.items():
        key = before + (field.alias or name)
        yield key
        yield from _inner(field.annotation, key)


def _inner(annotation: Any, key: str) -> Iterator[str]:  # any annotation of a shape
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from keys(annotation, f"{key}.")
        return
    for one in get_args(annotation):
        is_many = getattr(annotation, "__origin__", None)
        inner = {list: f"{key}[]", dict: f"{key}.<name>"}.get(is_many, key)  # type: ignore[arg-type]
        yield from _inner(one, inner)


def custom_properties() -> Iterator[str]:
    """Yields what `contracts/document.py` reads from `customProperties`, by its docstring."""
    tree = ast.parse((SOURCE / "contracts" / "document.py").read_text(encoding="utf-8"))
    told = (ast.get_docstring(tree) or "").partition("customProperties`:")[2]
    yield from re.findall(r"`(\w+)`", told.partition(".")[0])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_example_of_configuration_is_read_without_a_fault() -> None:
    examples = blocks(page("configuration.md"), "yaml")
    assert len(examples) >= 3
    for text in examples:
        if text.startswith("# instep.yaml"):
            parse_project(text)
        elif text.startswith("# pipelines/"):
            parse_pipeline(text, "pipelines/example.yaml")
        else:
            parse_contract(text, "contracts/example.yaml")


def raised(paths: Iterator[Path]) -> set[tuple[str, str]]:
    """Returns (kind, family) of every error that the sources make."""
    families = {family.__name__: family.family for family in errors.FAMILIES}
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for keyword in node.keywords:
                if name in families and keyword.arg == "kind":
                    for part in ast.walk(keyword.value):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            found.add((part.value, families[name]))
    return found


def rows_of_kinds() -> list[tuple[str, str]]:
    """Returns the kind and the families of each row of the errors page."""
    rows = re.findall(r"^\| ([\w-]+) \| ([\w -]+) \| .+ \| .+ \|$", page("errors.md"), re.MULTILINE)
    return [row for row in rows if row[0] not in ("kind", "---")]


def documented_kinds() -> set[tuple[str, str]]:
    listed = rows_of_kinds()
    return {(kind, family) for kind, families in listed for family in families.split(" or ")}


def test_every_error_kind_stands_in_one_row() -> None:
    kinds = [kind for kind, _ in rows_of_kinds()]
    assert sorted(kinds) == sorted(set(kinds))


def test_every_error_kind_is_documented_with_its_family_and_no_other() -> None:
    made = raised(SOURCE.rglob("*.py"))
    documented = documented_kinds()
    assert made - documented == set(), "not documented"
    assert {kind for kind, _ in documented} - {kind for kind, _ in made | named()} == set()


def named() -> set[tuple[str, str]]:
    """Returns kinds that reach an error through a variable: any hyphenated text in the sources."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add((node.value, ""))
    return found


CANNOT_BE_MADE = {
    "ambiguous-commit",  # two ids with the same first eight characters
    "network-file-system",  # a network file system
}


def test_every_error_kind_is_shown_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    internal = errors.InternalError.family
    kinds = {kind for kind, family in documented_kinds() if family != internal} - CANNOT_BE_MADE
    assert {kind for kind in kinds if f'"{kind}"' not in tests} == set()


def test_every_family_and_exit_code_is_documented() -> None:
    text = page("errors.md")
    for family in errors.FAMILIES:
        assert f"| {family.family} | {family.exit_code} |" in text


def test_every_environment_variable_is_documented() -> None:
    text = page("commands.md")
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"\"(INSTEP_[A-Z_]+)\"", path.read_text(encoding="utf-8")):
            assert f"`{name}`" in text, f"{name} of {path.name} is not documented"


def test_every_route_is_documented() -> None:
    text = page("commands.md")
    routes = re.findall(
        r"^    (GET|POST) +(/\S*)", (SOURCE / "serving" / "endpoints.py").read_text(), re.MULTILINE
    )
    assert routes
    for method, route in routes:
        assert f"`{method} {route}`" in text, f"{method} {route} is not documented"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("#"):
            continue
        file = target.partition("#")[0]
        assert (path.parent / file).exists(), f"{path.name} links to {target}"


def test_every_line_of_the_security_page_names_tests_that_exist() -> None:
    names = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    lines = re.findall(r"^\| (?!who|---)(.+) \|$", page("security.md"), re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        held = re.findall(r"`(test_\w+)`", line.split(" | ")[3])
        assert held, f"no test holds: {line}"
        assert set(held) <= names, f"{set(held) - names} are no tests"


def test_every_room_is_on_the_map() -> None:
    text = page("architecture.md")
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    for room in rooms:
        assert f"`{room}/`" in text, f"docs/architecture.md does not name {room}"


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
