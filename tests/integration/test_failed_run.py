"""Nothing of a failed run can be proposed, merged, released or named, by anybody."""

from __future__ import annotations

from pathlib import Path

from shop import make_shop


def test_a_second_actor_finds_nothing_of_a_failed_run_to_merge(tmp_path: Path) -> None:
    shop = make_shop(tmp_path).merged()
    shop.must("ingest", shop.month(1), shop.month(2), shop.month(3))
    shop.must("branch", "make", "mine")
    steps = tmp_path / "steps" / "demand.py"
    steps.write_text("def fit(train, params, seed):\n    raise RuntimeError('half way')\n")
    before = [shop.must("log", ref, "--json").out for ref in ("main", "mine")]
    branches = shop.must("branch", "--json").out
    for branch in ("mine", "new"):
        failed = shop.instep("run", "demand", "--branch", branch, "--json")
        assert failed.code == 2
        assert failed.json["error"]["kind"] == "step-raised"
    assert [shop.must("log", ref, "--json").out for ref in ("main", "mine")] == before
    assert shop.must("branch", "--json").out == branches

    runs = sorted(path.name for path in (tmp_path / "lake" / "staging").glob("run_*"))
    assert len(runs) == 2, "what a failed run wrote stays readable under its id"
    for words, kind in (
        (["propose", "mine"], "nothing-to-propose"),
        (["propose", "new"], "no-such-ref"),
        *((["propose", run], "no-such-ref") for run in runs),
        *((["branch", "make", "theirs", "--at", run], "no-such-ref") for run in runs),
        *((["release", "prod", run], "no-such-ref") for run in runs),
    ):
        refused = shop.instep(*words, "--json", actor="ben")
        assert refused.json["error"]["kind"] == kind, words
    for run in runs:
        assert shop.must("log", "main", "--run", run, "--json").json["operations"] == []
    assert shop.must("changes", "--json").json == []
