"""The house holds: cheap imports, small packages, a lock that matches, five make targets."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "instep"

LOCKS = ["requirements.lock", "build.lock", "spark.lock", "duckdb.lock"]

SLOW = {
    "duckdb",
    "fastapi",
    "httpx",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "pyiceberg",
    "rich",
    "ruamel",
    "scipy",
    "skops",
    "sklearn",
    "sqlglot",
    "starlette",
    "uvicorn",
}
"""Libraries whose import costs more than a command that does not need them may take."""

_IMPORTED = """
import sys
from instep.cli.main import main
sys.argv = ["instep", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code or 0
print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(code)
"""


def imported(*words: str, at: Path) -> set[str]:
    """Returns the slow libraries that a command imports."""
    child = subprocess.run(
        [sys.executable, "-c", _IMPORTED, *words],
        cwd=at,
        env={**os.environ, "INSTEP_ACTOR": "ana"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    told = child.stderr.rpartition("imported:")[2].split()
    return SLOW & set(told)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    imported("init", "--empty", at=folder)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["serve", "--help"],
        ["demo", "--help"],
        ["status"],
        ["where"],
        ["log"],
        ["branch"],
        ["changes"],
        ["doctor"],
        ["backup", "backup"],
    ],
    ids=" ".join,
)
def test_a_command_that_needs_nothing_heavy_imports_nothing_heavy(
    words: list[str], project: Path
) -> None:
    assert imported(*words, at=project) == set()


def test_importing_instep_is_cheap() -> None:
    child = subprocess.run(
        [sys.executable, "-c", "import instep, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert {name.partition(".")[0] for name in child.stdout.split()} & SLOW == set()


def test_packages_hold_names_only() -> None:
    for path in SOURCE.rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.Expr(value=ast.Constant()) | ast.ImportFrom() | ast.Import():
                    continue
                case ast.FunctionDef(name="open" | "__getattr__") if path.parent == SOURCE:
                    continue
                case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.If():
                    continue
            pytest.fail(f"{path}:{node.lineno} holds more than names")


def test_every_module_says_what_it_answers() -> None:
    for path in SOURCE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


def test_no_module_is_named_after_nothing() -> None:
    names = {path.stem for path in SOURCE.rglob("*.py")}
    assert names & {"utils", "util", "common", "helpers", "manager", "misc"} == set()


def test_sql_that_reads_files_is_made_in_one_place() -> None:
    """Elsewhere what a folder is called could become a value of a column."""
    readers = re.compile(r"\b(read_(parquet|csv|csv_auto|json\w*)|parquet_scan)\(")
    found = {path.name for path in SOURCE.rglob("*.py") if readers.search(path.read_text("utf-8"))}
    assert found == set(), found


def locked(name: str) -> dict[str, Version]:
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in pins}


def required() -> dict[str, list[str]]:
    """Returns the requirements that each lock file has to satisfy, as pyproject.toml says them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [one for extra in told["project"]["optional-dependencies"].values() for one in extra]
    return {
        "requirements.lock": [*told["project"]["dependencies"], *extras],
        "build.lock": told["dependency-groups"]["build"],
        "spark.lock": told["dependency-groups"]["spark"],
        "duckdb.lock": told["dependency-groups"]["duckdb"],
    }


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_satisfies_every_requirement(name: str) -> None:
    pins = locked(name)
    for text in required()[name]:
        requirement = Requirement(text)
        if requirement.name == "instep":
            continue
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{name} lacks {text}: make it again, see its first lines"
        assert requirement.specifier.contains(version), f"{name} has {version} for {text}"


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_names_no_host_and_hashes_everything(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


NEEDED_BY_OTHERS = {"pytz"}
"""What src does not import itself: DuckDB needs pytz to give an instant to Python."""


def test_every_declared_dependency_is_imported_by_the_source() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    modules = {"ruamel-yaml": "ruamel"}
    imported = {
        module.partition(".")[0]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _modules(node)
    }
    unused = {name for name in names if modules.get(name, name) not in imported}
    assert unused == NEEDED_BY_OTHERS


def _modules(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str() as module):
            return [module]
        case _:
            return []


def test_make_has_five_public_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)
    assert targets == ["demo", "test", "test-long", "check", "bench"]


def test_what_must_pass_before_merging_is_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.findall(r"^make (.+)$", script.read_text(), re.MULTILINE) == ["check", "test"]


def test_the_example_travels_with_the_package() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = told["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"examples/flights": "instep/examples/flights"}
    assert (ROOT / "examples" / "flights" / "instep.yaml").is_file()


def test_no_two_test_files_share_a_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
