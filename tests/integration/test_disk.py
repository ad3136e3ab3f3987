"""Acts on a disk that is really full, and on one that really can only be read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from campaign import FAILED, Act, Campaign, World
from campaign_acts import ACTS
from commands import run

SIZE_BYTES = 4 << 20
FREE_KIB = (0, 4, 8, 16, 32, 64, 128, 256)
"""What is left of the disk: nothing, then enough for one step more and more."""

CHOSEN = {"init", "propose", "merge 1", "ingest sales-2013-01.csv", "branch make try"}
SAMPLED = {"init", "ingest sales-2013-01.csv"}
SAMPLED_KIB = (0, 64)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes, in memory, where acts work."""
    place = tmp_path / "work"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}): needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def _fill(disk: Path, free_bytes: int) -> Path:
    found = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - free_bytes)))
    return filler


def _acts(names: set[str]) -> pytest.MarkDecorator:
    chosen = [act for act in ACTS if act.name in names]
    return pytest.mark.parametrize("act", chosen, ids=lambda act: act.name[:20])


def _fill_up(act: Act, disk: Path, left_kib: Sequence[int]) -> None:
    campaign = Campaign(World(disk.parent), act)
    campaign.prepare()
    codes = []
    for free in left_kib:
        campaign.world.reset()
        filler = _fill(disk, free << 10)
        ended = campaign.run()
        filler.unlink()
        codes.append(ended.code)
        campaign.look(f"{free} KiB free", ended, FAILED)
    assert campaign.wrong == []
    assert codes[0] in FAILED


@_acts(SAMPLED)
def test_a_full_disk_leaves_before_or_after_and_says_so(act: Act, disk: Path) -> None:
    _fill_up(act, disk, SAMPLED_KIB)


@pytest.mark.long
@_acts(CHOSEN)
def test_a_disk_that_fills_up_anywhere_leaves_before_or_after(act: Act, disk: Path) -> None:
    _fill_up(act, disk, FREE_KIB)


@_acts(SAMPLED)
def test_a_disk_that_can_only_be_read_changes_nothing_and_says_so(act: Act, disk: Path) -> None:
    campaign = Campaign(World(disk.parent), act)
    campaign.prepare()
    campaign.world.reset()
    _remount(disk, "ro")
    ended = campaign.run()
    reads = run("log", at=campaign.folder)
    _remount(disk, "rw")
    campaign.look("read-only", ended, FAILED)
    assert campaign.wrong == []
    assert ended.code in FAILED
    assert "writable" in ended.err
    assert "Traceback" not in reads.err
