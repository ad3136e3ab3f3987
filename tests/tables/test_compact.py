"""Compaction: the same rows in fewer files, old commits readable, nothing lost to others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bare import bare_table
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.engine import ColumnStatistics, WrittenFile
from instep.engines.schema import Column
from instep.history.repository import Repository
from instep.tables.compact import bounded, compact_state, groups_of, plan_groups
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.partition import Part
from instep.tables.profile_keep import profile_table
from instep.tables.read import (
    counted_as,
    data_files,
    file_set,
    load_metadata,
    located,
    metadata_path,
    schema_of,
)
from instep.tables.replaced import Why, stand_in, why_replaced
from instep.tables.rows import Rows, append_rows
from instep.tables.shared import unshared
from instep.tables.verify import required_files
from instep.tables.write import append, create_table, data_folder, rewritten, set_layout

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "n", "long"), Column(0, "at", "timestamptz"), Column(0, "t", "string"))
TIME = Column(2, "at", "timestamptz")


def _added(root: Path, table: TableContent, numbers: Sequence[int]) -> TableContent:
    """The rows of a number are told by it alone."""
    listed = ", ".join(f"({n})" for n in numbers)
    sql = (
        "SELECT n::BIGINT AS n, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours(n) AS at, "
        f"CASE WHEN n % 3 = 0 THEN NULL ELSE 'row ' || n END AS t FROM (VALUES {listed}) v(n)"
    )
    with DuckDB(root / "staging") as engine:
        files = engine.write(sql, schema_of(root, table), data_folder(root, table))
    return append(root, table, files, at=AT)


def _rows(root: Path, table: TableContent) -> list[int]:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        wrong = engine.rows(
            "SELECT count(*) FROM t WHERE t IS DISTINCT FROM "
            "CASE WHEN n % 3 = 0 THEN NULL ELSE 'row ' || n END "
            "OR \"at\" <> TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_hours(n)"
        )
        assert wrong == [(0,)]
        return sorted(row[0] for row in engine.rows("SELECT n FROM t"))


def _whole(root: Path, table: TableContent) -> None:
    for required in required_files(root, table, set()):
        assert required.path.exists()


def _states(root: Path, counts: Sequence[int]) -> list[TableContent]:
    states = [create_table(root, "t", COLUMNS, at=AT)]
    for number, count in enumerate(counts):
        states.append(_added(root, states[-1], range(100 * number, 100 * number + count)))
    return states


def test_compaction_keeps_rows_and_contents_and_older_states_read_their_own_files(
    repo: Repository,
) -> None:

    states = _states(repo.root, [5, 1, 7, 3])
    rows = [_rows(repo.root, state) for state in states]
    profile = profile_table(repo.root, states[-1])

    done = compact_state(repo, states[-1], at=AT)

    assert (done.before.files, done.after.files, done.groups) == (4, 1, 1)
    assert [len(data_files(repo.root, state)) for state in states] == [0, 1, 2, 3, 1]
    assert [_rows(repo.root, state) for state in states] == rows
    assert located(repo.root, states[-1]) != states[-1]
    assert why_replaced(repo.root, states[-1]) is Why.COMPACTED
    assert why_replaced(repo.root, states[-2]) is None
    (file,) = data_files(repo.root, states[-1])
    assert (repo.root / "tables" / states[-1].uuid / "profiles" / f"{file.digest}.parquet").exists()
    assert profile_table(repo.root, states[-1]) == profile
    for state in states:
        _whole(repo.root, state)
    read = bare_table(repo.root, metadata_path(repo.root, states[-1])).scan().to_arrow()
    assert sorted(int(n or 0) for n in read["n"].to_pylist()) == rows[-1]
    assert len(load_metadata(repo.root, states[-1])["snapshots"]) == 1


def test_what_is_appended_after_a_compaction_goes_on_from_it_with_the_same_digest(
    repo: Repository,
) -> None:
    states = _states(repo.root, [2, 2])
    files = {}
    for name in ("before", "after"):
        content = _added(repo.root, states[-1], [900])
        files[name] = content
        compact_state(repo, states[-1], at=AT)
    assert len(data_files(repo.root, files["before"])) == 3
    assert len(data_files(repo.root, files["after"])) == 2
    # The same rows were written twice, to the same bytes.
    assert files["before"].files == files["after"].files
    diff = diff_rows(repo.root, files["before"], files["after"], ["n"])
    assert diff.is_empty
    told = [
        counted_as(repo.root, one, [file.path for file in data_files(repo.root, one)])
        for one in files.values()
    ]
    assert unshared(*told) == (frozenset(), frozenset())
    assert _rows(repo.root, files["after"]) == [0, 1, 100, 101, 900]
    diff = diff_rows(repo.root, states[1], files["after"], ["n"])
    assert (diff.added, diff.removed, diff.changed) == (3, 0, 0)


def test_a_compaction_that_comes_late_replaces_nothing(repo: Repository) -> None:
    state = _states(repo.root, [2, 2, 2])[-1]
    before = located(repo.root, state)
    paths = [file.path for file in data_files(repo.root, state)]
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, state, "t"))
        made = engine.write(
            "SELECT * FROM t", schema_of(repo.root, state), data_folder(repo.root, state)
        )
    late = rewritten(repo.root, state, made, paths, at=AT)
    assert compact_state(repo, state, at=AT).groups == 1
    now = located(repo.root, state)
    assert not stand_in(repo, state, before, late, Why.COMPACTED)
    assert located(repo.root, state) == now
    again = compact_state(repo, state, at=AT)
    assert (again.groups, again.why_not) == (0, "it has one file")


def test_an_append_meanwhile_is_compacted_along(repo: Repository) -> None:
    state = _states(repo.root, [2, 2, 2])[-1]
    newer = _added(repo.root, state, [900])
    compact_state(repo, state, at=AT, newer=lambda: newer)
    assert len(data_files(repo.root, newer)) == 2
    assert _rows(repo.root, newer) == [0, 1, 100, 101, 200, 201, 900]


def _file(number: int, size: int, first: int, last: int, partition: str = "") -> WrittenFile:
    lower, upper = ((AT + timedelta(hours=hour)).isoformat() for hour in (first, last))
    statistics = (ColumnStatistics(2, 10, 5, 0, 0, lower, upper),)
    where = (partition,) if partition else ()
    return WrittenFile(f"{number}.parquet", 5, size, f"{number:064}", statistics, where)


def _names(files: Sequence[WrittenFile], order: Column | None = TIME) -> list[list[str]]:
    groups = plan_groups(files, order, (), 100)
    return [[file.path.removesuffix(".parquet") for file in group.files] for group in groups]


def test_small_files_are_put_together_with_their_neighbours_in_time() -> None:
    files = [_file(1, 40, 20, 25), _file(2, 40, 0, 5), _file(3, 40, 10, 15), _file(4, 40, 30, 35)]
    assert _names(files) == [["2", "3"], ["1", "4"]]
    assert _names(files, None) == [["1", "2"], ["3", "4"]]


def test_a_large_file_between_two_small_ones_parts_them() -> None:
    files = [_file(1, 10, 0, 1), _file(2, 10, 2, 3), _file(3, 90, 5, 9), _file(4, 10, 11, 12)]
    assert _names(files) == [["1", "2"]]
    across = [*files[:2], _file(3, 90, 1, 20), files[3]]
    assert _names(across) == [["1", "2", "4"]]


def test_partitions_are_never_mixed_and_a_file_with_deleted_rows_goes_alone() -> None:
    files = [_file(1, 10, 0, 1, "a"), _file(2, 10, 0, 1, "b"), _file(3, 10, 2, 3, "a")]
    assert _names(files) == [["1", "3"]]
    (group,) = plan_groups([files[1]], TIME, {"2.parquet"}, 100)
    assert group.files == (files[1],)


def test_files_of_unlike_partition_specs_are_never_mixed(tmp_path: Path) -> None:
    """Both have partitions "0" and "1", which are years in one and numbers in the other."""
    columns = (Column(0, "n", "long"), Column(0, "at", "timestamptz"))
    state = create_table(tmp_path, "t", columns, at=AT, partition=[Part("at", "year")])
    paths = []
    for part in (Part("at", "year"), Part("n")):
        state = set_layout(tmp_path, state, [part], (), at=AT)
        before = {file.path for file in data_files(tmp_path, state)}
        for _ in range(2):
            rows = "select i as n, TIMESTAMPTZ '1970-06-01' + to_years(i::int) as at"
            state = append_rows(tmp_path, state, Rows(f"{rows} from range(2) r(i)"), at=AT)
        paths.append({file.path for file in data_files(tmp_path, state)} - before)

    groups = groups_of(tmp_path, state)
    assert [len(group.files) for group in groups] == [2, 2, 2, 2]
    for group in groups:
        assert any({file.path for file in group.files} <= one for one in paths)


def test_a_bound_takes_the_groups_that_gain_most() -> None:
    files = [_file(n, 5, n, n) for n in range(10)] + [_file(n, 45, n, n) for n in range(10, 14)]
    groups = plan_groups(files, TIME, (), 100)
    assert sum(group.size_bytes for group in bounded(groups, 100)) <= 100
    assert bounded(groups, None) == groups
    assert bounded(groups, 10) == ()


@given(
    st.lists(
        st.tuples(st.integers(1, 120), st.integers(0, 50), st.integers(0, 9), st.sampled_from("ab"))
    )
)
def test_every_file_is_in_one_group_at_most_and_no_group_is_far_above_the_target(
    drawn: list[tuple[int, int, int, str]],
) -> None:
    files = [
        _file(number, size, first, first + length, part)
        for number, (size, first, length, part) in enumerate(drawn)
    ]
    groups = plan_groups(files, TIME, (), 100)
    grouped = [file.path for group in groups for file in group.files]
    assert len(grouped) == len(set(grouped))
    for group in groups:
        assert len(group.files) > 1
        assert group.size_bytes <= 100
        assert len({file.partition for file in group.files}) == 1


@given(st.data())
@settings(max_examples=200)
def test_files_left_out_of_a_comparison_hold_the_same_rows_on_both_sides(
    data: st.DataObject,
) -> None:
    """A digest stands for one row; compacted files for several; sides for bags of rows."""
    told = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), max_size=5)
    sides = [
        {f"{side}{n}": tuple(one) for n, one in enumerate(data.draw(told))} for side in ("x", "y")
    ]
    kept = unshared(*sides)
    gone = [
        sorted(d for path, one in side.items() if path not in left for d in one)
        for side, left in zip(sides, kept, strict=True)
    ]
    assert gone[0] == gone[1]
