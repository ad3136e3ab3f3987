"""The project folder as contents: every file that a pipeline needs, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import LATE, SALES_ONLY, TRAINING, Bakery

from instep.errors import InvalidError
from instep.pipelines.capture import (
    capture_project,
    files_of,
    files_of_step,
    read_pipeline,
    read_project,
    read_run,
)
from instep.pipelines.draft import draft_differences

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: sales
version: 1.0.0
status: active
schema:
  - name: sales
    properties:
      - {name: id, logicalType: integer}
"""


@pytest.fixture
def training(bakery: Bakery) -> Bakery:
    bakery.write("pipelines/bread.yaml", SALES_ONLY + TRAINING)
    bakery.write("steps/late.py", "from steps.tools import depth\nimport numpy\n\n" + LATE)
    bakery.write("steps/tools/__init__.py", "from . import trees\n")
    bakery.write("steps/tools/trees.py", "def f():\n    import shared\n")
    bakery.write("shared.py", "")
    bakery.write("steps/unused.py", "")
    return bakery


def files(folder: Path) -> set[str]:
    return set(files_of(read_project(folder).contents["pipeline/bread"]))


def test_modules_are_followed_through_every_kind_of_import(training: Bakery) -> None:
    assert files(training.folder) == {
        "pipelines/bread.yaml",
        "steps/orders.sql",
        "steps/late.py",
        "steps/tools/__init__.py",
        "steps/tools/trees.py",
        "shared.py",
    }


def test_a_step_has_only_the_files_that_reach_it(training: Bakery) -> None:
    config, captured = read_pipeline(training.folder, "bread")
    content = captured.contents["pipeline/bread"]
    assert set(files_of_step(config, "orders", content, captured.blobs)) == {"steps/orders.sql"}
    assert "steps/orders.sql" not in files_of_step(config, "late", content, captured.blobs)
    assert "shared.py" in files_of_step(config, "late", content, captured.blobs)


def test_everything_captured_can_be_read_back(training: Bakery) -> None:
    contents = capture_project(training.folder, training.repo.objects)
    assert set(contents) == {"config/instep", "pipeline/bread"}
    for path, digest in files_of(contents["pipeline/bread"]).items():
        assert training.repo.objects.get(digest) == (training.folder / path).read_bytes()


def fault(folder: Path) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        read_project(folder)
    return caught.value


def test_a_missing_file_is_named_with_its_line_and_the_nearest(bakery: Bakery) -> None:
    bakery.edit("pipelines/bread.yaml", "steps/orders.sql", "steps/ordrs.sql")
    error = fault(bakery.folder)
    assert error.kind == "missing-file"
    assert str(error).startswith("pipelines/bread.yaml:7")
    assert 'Did you mean "steps/orders.sql"?' in str(error)


def test_a_file_outside_the_project_is_refused(bakery: Bakery) -> None:
    bakery.edit("pipelines/bread.yaml", "steps/orders.sql", "../orders.sql")
    assert fault(bakery.folder).kind == "file-outside-project"


def test_python_that_cannot_be_parsed_is_named_with_its_line(training: Bakery) -> None:
    training.write("steps/late.py", "import numpy\ndef fit(:\n")
    error = fault(training.folder)
    assert error.kind == "bad-python"
    assert str(error).startswith("steps/late.py:2")


@pytest.mark.parametrize(
    "code",
    ["def fitt(train, params, seed):\n    pass\n", "class Other:\n    def fit(self): ...\n"],
)
def test_a_function_that_the_file_does_not_define_is_named_before_anything_runs(
    training: Bakery, code: str
) -> None:
    training.write("steps/late.py", code)
    assert fault(training.folder).kind == "no-such-function"
    with pytest.raises(InvalidError, match='has no function "fit"'):
        read_run(training.folder, "bread")


@pytest.mark.parametrize(
    "code",
    [
        "from steps.other import fit\n",
        "from steps.other import *\n",
        "def make():\n    return None\n\n\nfit = make()\n",
        "if True:\n    def fit(train, params, seed): ...\n",
    ],
)
def test_a_function_may_be_defined_in_any_way_that_python_has(training: Bakery, code: str) -> None:
    training.write("steps/other.py", "def fit(train, params, seed): ...\n")
    training.write("steps/late.py", code)
    read_run(training.folder, "bread")


def test_sql_and_contracts_are_validated_before_anything_is_stored(bakery: Bakery) -> None:
    bakery.write("steps/orders.sql", "select now() as at from sales")
    with pytest.raises(InvalidError):
        capture_project(bakery.folder, bakery.repo.objects)
    assert not list(bakery.repo.objects.folder.rglob("*"))
    bakery.write("steps/orders.sql", "select id from sales")
    bakery.write("contracts/sales.yaml", CONTRACT.replace("logicalType", "logicalTyp"))
    assert 'Did you mean "logicalType"?' in str(fault(bakery.folder))


def test_a_contract_or_pipeline_is_called_like_its_file(bakery: Bakery) -> None:
    bakery.write("contracts/sale.yaml", CONTRACT)
    assert '"sales": expected "sale"' in str(fault(bakery.folder))
    (bakery.folder / "contracts/sale.yaml").unlink()
    bakery.write("pipelines/loaf.yaml", SALES_ONLY)
    assert '"bread": expected "loaf"' in str(fault(bakery.folder))


def test_an_unknown_pipeline_is_answered_with_the_nearest(bakery: Bakery) -> None:
    with pytest.raises(InvalidError) as caught:
        read_pipeline(bakery.folder, "bred")
    assert caught.value.kind == "no-such-pipeline"
    assert 'Did you mean "bread"?' in str(caught.value)


def test_the_draft_is_compared_with_a_commit_by_key_and_file(bakery: Bakery) -> None:
    bakery.adopt()
    bakery.run()
    commit = bakery.repo.resolve("try")
    assert draft_differences(bakery.folder, bakery.repo, commit) == ()
    bakery.write("contracts/sales.yaml", CONTRACT)
    bakery.edit("steps/orders.sql", "interval 1 day", "interval 2 day")
    found = draft_differences(bakery.folder, bakery.repo, commit)
    assert [(one.key, one.state, one.files) for one in found] == [
        ("contract/sales", "new", ("contracts/sales.yaml",)),
        ("pipeline/bread", "changed", ("steps/orders.sql",)),
    ]
    (bakery.folder / "pipelines/bread.yaml").unlink()
    assert draft_differences(bakery.folder, bakery.repo, commit)[1].state == "only in the lake"
