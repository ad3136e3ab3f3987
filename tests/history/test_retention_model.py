"""The protocols of garbage collection, checked in every order of their steps by spin."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[1] / "models_checked"
FOLDER, FENCE, STANDING = (MODELS / f"{name}.pml" for name in ("gc", "fence", "standing"))

pytestmark = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("gcc")),
    reason='spin and gcc are not installed ("apt-get install spin gcc"): the model is not checked',
)


def check(folder: Path, model: Path, *defined: str, compiled: str = "-O0") -> str:
    """Returns what the checker says of the model with parts of the protocol left out.

    What is wrong is found at once, sooner than a compiler makes the checker fast.
    """
    options = [f"-D{name}" for name in defined]
    for command in (
        ["spin", *options, "-a", str(model)],
        ["gcc", compiled, "-w", "-DSAFETY", "-DMEMLIM=2048", "-o", "pan", "pan.c"],
        ["./pan", "-m100000"],
    ):
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("model", "defined"),
    [
        pytest.param(FOLDER, (), id="folder"),
        pytest.param(FENCE, ("ONE_COLLECTOR",), id="s3, one collector"),
        pytest.param(FENCE, (), id="s3", marks=pytest.mark.long),
        pytest.param(STANDING, (), id="what stands for a state"),
    ],
)
def test_no_order_of_steps_loses_what_a_commit_names(
    tmp_path: Path, model: Path, defined: tuple[str, ...]
) -> None:
    said = check(tmp_path, model, *defined, compiled="-O2")
    assert "errors: 0" in said
    assert "max search depth too small" not in said


@pytest.mark.parametrize("part", ["NO_WRITERS", "NO_WANTED", "WRITERS_LAST", "FORGET_FIRST"])
def test_every_part_of_the_protocol_is_needed(tmp_path: Path, part: str) -> None:
    assert "errors: 1" in check(tmp_path, FOLDER, part)


@pytest.mark.parametrize(
    "part", ["NO_SESSION", "NO_CHECK", "CHECK_FIRST", "SAME_NAME", "LOOK_FIRST"]
)
def test_every_part_of_the_fence_is_needed(tmp_path: Path, part: str) -> None:
    assert "errors: 1" in check(tmp_path, FENCE, part)


@pytest.mark.parametrize(
    "part",
    ["SWAP_ALONE", "NO_SESSION", "NO_MATCH", "NO_CATCH_UP", "RECORD_ALONE", "DECISION_ALONE"],
)
def test_every_part_of_what_decides_which_files_stand_is_needed(tmp_path: Path, part: str) -> None:
    assert "errors: 1" in check(tmp_path, STANDING, part)
