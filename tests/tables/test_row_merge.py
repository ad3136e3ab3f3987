"""Merging two states of a table, against a naive three-way merge of Python dicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.duckdb import DuckDB
from instep.engines.engine import WrittenFile
from instep.engines.schema import Column
from instep.errors import ConflictError, InvalidError
from instep.history.repository import Repository
from instep.tables.columns import added
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.merge import merge_rows
from instep.tables.read import data_files, file_set, row_count, schema_of
from instep.tables.row_merge import Choice, Conflict, Place, Resolution, RowMerge, Take
from instep.tables.rows import delete_rows
from instep.tables.write import (
    append,
    create_table,
    data_folder,
    evolve,
    rename_column,
    replace,
    set_columns,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (Column(0, "k", "long"), Column(0, "v", "string"), Column(0, "d", "double"))
Values = tuple[str | None, float | None]
Rows = dict[int | None, Values]


def _files(root: Path, table: TableContent, sql: str) -> tuple[WrittenFile, ...]:
    with DuckDB(root / "staging") as engine:
        return engine.write(sql, schema_of(root, table), data_folder(root, table))


def _sql(rows: Rows) -> str:
    def cell(value: object) -> str:
        if value is None:
            return "NULL"
        return f"'{value}'" if isinstance(value, str) else f"({value!r})"

    listed = ", ".join(f"({cell(k)}, {cell(v)}, {cell(d)})" for k, (v, d) in rows.items())
    return f"SELECT k::BIGINT k, v::VARCHAR v, d::DOUBLE d FROM (VALUES {listed}) t(k, v, d)"


def _added(root: Path, table: TableContent, rows: Rows) -> TableContent:
    return append(root, table, _files(root, table, _sql(rows)), at=AT) if rows else table


def _become(root: Path, table: TableContent, before: Rows, after: Rows) -> TableContent:
    """Writes a state as a user would: only files with a row that is another now are rewritten."""
    for half in (0, 1):
        old = {k: v for k, v in before.items() if _half(k) == half}
        new = {k: v for k, v in after.items() if _half(k) == half}
        if old == new:
            continue
        gone = [file.path for file in data_files(root, table) if _holds(file, old)]
        files = _files(root, table, _sql(new)) if new else ()
        table = replace(root, table, files, gone, at=AT)
    return table


def _half(key: int | None) -> int:
    return 0 if key is None else key % 2


def _holds(file: WrittenFile, rows: Rows) -> bool:
    keys = [key for key in rows if key is not None]
    column = file.columns[0]
    if column.lower is None:
        return None in rows
    return int(column.lower) in keys


def _rows(root: Path, table: TableContent) -> Rows:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        found = engine.rows("SELECT k, v, d FROM t")
    rows = {k: (v, d) for k, v, d in found}
    assert len(rows) == len(found)
    return rows


def _naive(base: Rows, ours: Rows, theirs: Rows) -> tuple[Rows, set[tuple[int | None, str]]]:
    """Returns the merged rows, ours where there is a conflict, and the conflicts."""
    merged: Rows = {}
    conflicts: set[tuple[int | None, str]] = set()
    for key in base.keys() | ours.keys() | theirs.keys():
        was, mine, yours = base.get(key), ours.get(key), theirs.get(key)
        if yours == was or mine == yours:
            taken = mine
        elif mine == was:
            taken = yours
        elif mine is None or yours is None:
            conflicts.add((key, ""))
            taken = mine
        else:
            cells = []
            for n, name in enumerate(("v", "d")):
                before = was[n] if was is not None else object()
                if yours[n] in (before, mine[n]):
                    cells.append(mine[n])
                elif mine[n] == before:
                    cells.append(yours[n])
                else:
                    conflicts.add((key, name))
                    cells.append(mine[n])
            taken = (cells[0], cells[1])  # type: ignore[assignment]  # a list forgets which is which
        if taken is not None:
            merged[key] = taken
    return merged, conflicts


states = st.dictionaries(
    st.integers(0, 7) | st.none(),
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([0.5, -1.0, None])),
    max_size=7,
)


@settings(max_examples=35)
@given(base=states, ours=states, theirs=states)
def test_rows_are_merged_as_dicts_are(base: Rows, ours: Rows, theirs: Rows) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        empty = create_table(root, "t", COLUMNS, at=AT)
        first = _become(root, empty, {}, base)
        mine, yours = (_become(root, first, base, rows) for rows in (ours, theirs))
        expected, conflicts = _naive(base, ours, theirs)

        found = merge_rows(root, first, mine, yours, ["k"], at=AT)
        assert found.conflicting == len(conflicts)
        assert {
            (int(one.key[0]) if one.key[0] is not None else None, one.column)
            for one in found.conflicts
        } == conflicts
        assert (found.content is None) == bool(conflicts)

        settled = merge_rows(
            root, first, mine, yours, ["k"], Resolution(otherwise=Take.OURS), at=AT
        )
        assert settled.settled == len(conflicts)
        assert settled.content is not None
        assert _rows(root, settled.content) == expected


States = tuple[TableContent, TableContent, TableContent]


def _merged(
    root: Path, states: States, key: list[str], resolution: Resolution | None = None
) -> RowMerge:
    return merge_rows(root, *states, key, resolution, at=AT)


BASE: Rows = {1: ("a", 0.5), 2: ("a", 0.5), 3: ("a", 0.5), 4: ("a", 0.5)}


def _forked(root: Path, ours: Rows, theirs: Rows) -> States:
    first = _become(root, create_table(root, "t", COLUMNS, at=AT), {}, BASE)
    return first, _become(root, first, BASE, ours), _become(root, first, BASE, theirs)


def test_conflicts_are_listed_and_settled_one_by_one(tmp_path: Path) -> None:
    ours = {**BASE, 1: ("mine", 0.5), 2: ("mine", 2.0)}
    theirs = {k: v for k, v in BASE.items() if k != 2} | {1: ("yours", 0.5)}
    states = _forked(tmp_path, ours, theirs)

    left = _merged(tmp_path, states, ["k"])
    assert left.conflicts == (
        Conflict(("1",), "v", "a", "mine", "yours"),
        Conflict(("2",), "", "here", "here", "removed"),
    )
    choices: dict[Place, Choice] = {(("2",), ""): Choice(Take.THEIRS)}
    some = _merged(tmp_path, states, ["k"], Resolution(choices))
    assert (some.content, some.settled, some.conflicting) == (None, 1, 1)
    choices[("1",), "v"] = Choice(Take.GIVEN, "both")
    settled = _merged(tmp_path, states, ["k"], Resolution(choices))
    assert settled.content is not None
    assert _rows(tmp_path, settled.content) == {1: ("both", 0.5), 3: ("a", 0.5), 4: ("a", 0.5)}


def test_a_value_given_for_a_row_that_one_side_removed_is_refused(tmp_path: Path) -> None:
    without = {k: v for k, v in BASE.items() if k != 1}
    states = _forked(tmp_path, without, {**BASE, 1: ("a", 2.0)})
    given = Resolution({(("1",), ""): Choice(Take.GIVEN, "5")})
    with pytest.raises(InvalidError) as caught:
        _merged(tmp_path, states, ["k"], given)
    assert caught.value.kind == "bad-value"
    assert "the row k 1" in caught.value.message


def test_a_given_value_that_is_none_of_the_column_is_refused(tmp_path: Path) -> None:
    states = _forked(tmp_path, {**BASE, 1: ("a", 1.0)}, {**BASE, 1: ("a", 2.0)})
    choices: dict[Place, Choice] = {(("1",), "d"): Choice(Take.GIVEN, "much")}
    with pytest.raises(InvalidError) as caught:
        _merged(tmp_path, states, ["k"], Resolution(choices))
    assert caught.value.kind == "bad-value"
    assert '"much" given for "d" of k 1' in caught.value.message


def test_a_choice_for_what_is_no_conflict_is_refused(tmp_path: Path) -> None:
    states = _forked(tmp_path, {**BASE, 1: ("a", 1.0)}, {**BASE, 1: ("a", 2.0)})
    for key, column in (("3", "d"), ("1", "v"), ("1", "")):
        choices: dict[Place, Choice] = {((key,), column): Choice(Take.OURS)}
        with pytest.raises(InvalidError) as caught:
            _merged(tmp_path, states, ["k"], Resolution(choices, Take.OURS))
        assert caught.value.kind == "no-such-conflict"


def test_sides_that_changed_different_files_are_merged_as_files(tmp_path: Path) -> None:
    base, ours, theirs = _forked(tmp_path, {**BASE, 1: ("x", 0.5)}, {**BASE, 2: ("y", 0.5)})
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    before = {file.path for state in (ours, theirs) for file in data_files(tmp_path, state)}
    assert {file.path for file in data_files(tmp_path, merged.content)} <= before
    assert _rows(tmp_path, merged.content) == {**BASE, 1: ("x", 0.5), 2: ("y", 0.5)}
    assert (merged.added, merged.changed, merged.removed) == (0, 1, 0)


def test_without_a_key_the_files_of_both_sides_are_kept(tmp_path: Path) -> None:
    base = _added(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {1: ("a", 0.5)})
    ours, theirs = (_added(tmp_path, base, {n: ("b", None)}) for n in (2, 3))
    merged = merge_rows(tmp_path, base, ours, theirs, [], at=AT)
    assert merged.content is not None
    assert set(_rows(tmp_path, merged.content)) == {1, 2, 3}
    assert merged.added == 1


def test_without_a_key_a_file_that_both_rewrote_is_a_conflict(tmp_path: Path) -> None:
    states = _forked(tmp_path, {**BASE, 1: ("x", 0.5)}, {**BASE, 3: ("y", 0.5)})
    merged = _merged(tmp_path, states, [])
    assert merged.content is None
    assert len(merged.files) == merged.conflicting == 1


def test_without_a_key_rows_that_theirs_dropped_do_not_come_back_silently(tmp_path: Path) -> None:
    base, ours, theirs = _forked(tmp_path, BASE, {})
    fewer = delete_rows(tmp_path, ours, "k = 1", at=AT)
    for states in ((base, fewer, theirs), (base, theirs, fewer)):
        merged = _merged(tmp_path, states, [])
        assert merged.content is None
        assert merged.conflicting >= 1


def test_without_a_key_new_rows_of_both_sides_are_kept_where_both_were_compacted(
    repo: Repository,
) -> None:
    root = repo.root
    base = create_table(root, "t", COLUMNS, at=AT)
    for n in (1, 2):
        base = _added(root, base, {n: ("a", 0.5)})
    ours, theirs = (_added(root, base, {n: ("b", None)}) for n in (3, 4))
    for state in (ours, theirs):
        assert compact_state(repo, state, at=AT).now is not None
    merged = _merged(root, (base, ours, theirs), [])
    assert merged.content is not None
    assert set(_rows(root, merged.content)) == {1, 2, 3, 4}
    assert merged.added == 1


Bag = tuple[str | None, ...]
"""The rows of one file, where rows have no key and may be equal."""


@dataclass(frozen=True)
class Side:
    """What one side did: the rows it left of each file of the base (None: not touched), new files.

    A file of which all rows are left was rewritten as it is.
    """

    left: tuple[Bag | None, ...]
    new: tuple[Bag, ...]


def _bags(values: list[str | None], least: int) -> st.SearchStrategy[Bag]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=3).map(tuple)


@st.composite
def _keyless(draw: st.DrawFn) -> tuple[list[Bag], Side, Side]:
    """A base, and two sides; what they add is equal to no row of the base."""
    base = draw(st.lists(_bags(["a", "b", None], 1), min_size=1, max_size=3))

    def side() -> Side:
        left: list[Bag | None] = []
        for bag in base:
            kept = draw(st.none() | st.lists(st.booleans(), min_size=len(bag), max_size=len(bag)))
            chosen = zip(bag, kept or (), strict=False)
            left.append(None if kept is None else tuple(row for row, is_in in chosen if is_in))
        return Side(tuple(left), tuple(draw(st.lists(_bags(["x", "y"], 1), max_size=2))))

    return base, side(), side()


def _bag_sql(bag: Bag) -> str:
    listed = ", ".join("(NULL)" if row is None else f"('{row}')" for row in bag)
    return f"SELECT v::VARCHAR AS v FROM (VALUES {listed}) t(v)"


def _one_side(root: Path, base: TableContent, side: Side) -> TableContent:
    gone, bags = [], list(side.new)
    for file, left in zip(data_files(root, base), side.left, strict=True):
        if left is not None:
            gone.append(file.path)
            bags += [left] if left else []
    files = [one for bag in bags for one in _files(root, base, _bag_sql(bag))]
    return replace(root, base, files, gone, at=AT)


def _counted(root: Path, table: TableContent) -> Counter[str | None]:
    with DuckDB(root / "staging") as engine:
        engine.view(file_set(root, table, "t"))
        return Counter(row for (row,) in engine.rows("SELECT v FROM t"))


def _gone(bag: Bag, side: Bag | None) -> Counter[str | None]:
    return Counter(bag) - Counter(bag if side is None else side)


@settings(max_examples=25)
@given(case=_keyless())
def test_without_a_key_rows_are_merged_as_bags_are(case: tuple[list[Bag], Side, Side]) -> None:
    bags, ours, theirs = case
    expected: Counter[str | None] = Counter()
    is_disputed = False
    for bag, mine, yours in zip(bags, ours.left, theirs.left, strict=True):
        # Which of two equal rows is meant nobody can tell: then, both sides meant the same one.
        expected += Counter(bag) - (_gone(bag, mine) | _gone(bag, yours))
        is_disputed |= None not in (mine, yours)
    for bag in (*ours.new, *theirs.new):
        expected += Counter(bag)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        base = create_table(root, "t", [Column(0, "v", "string")], at=AT)
        for bag in bags:
            base = append(root, base, _files(root, base, _bag_sql(bag)), at=AT)
        states = [_one_side(root, base, side) for side in (ours, theirs)]

        for one, two in (states, states[::-1]):
            merged = merge_rows(root, base, one, two, [], at=AT)
            assert merged.content is not None or is_disputed
            if merged.content is not None:
                assert _counted(root, merged.content) == expected


def test_columns_of_both_sides_are_kept_under_their_field_ids(tmp_path: Path) -> None:
    base = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    ours = set_columns(tmp_path, base, (*COLUMNS, Column(0, "mine", "long")), at=AT)
    ours = _become(tmp_path, rename_column(tmp_path, ours, "v", "word", at=AT), BASE, {**BASE})
    theirs = set_columns(tmp_path, base, (*COLUMNS, Column(0, "yours", "date")), at=AT)
    theirs = _become(tmp_path, theirs, {}, {})
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    schema = schema_of(tmp_path, merged.content)
    assert schema.names == ("k", "word", "d", "mine", "yours")
    assert [column.id for column in schema.columns] == [1, 2, 3, 4, 5]


def test_a_column_that_both_changed_is_a_conflict_of_columns(tmp_path: Path) -> None:
    base = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    ours, theirs = (rename_column(tmp_path, base, "v", name, at=AT) for name in ("x", "y"))
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert [str(one) for one in merged.definition] == ['name of column "v": v; ours: x; theirs: y']


def test_two_new_columns_of_one_name_are_a_conflict(tmp_path: Path) -> None:
    base = create_table(tmp_path, "t", COLUMNS, at=AT)
    ours, theirs = (
        set_columns(tmp_path, base, (*COLUMNS, Column(0, "same", "long")), at=AT) for _ in range(2)
    )
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert [(one.what, one.base) for one in merged.definition] == [('column "same"', "absent")]


def test_values_in_a_column_that_the_other_side_dropped_are_a_conflict(tmp_path: Path) -> None:
    base = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    ours = set_columns(tmp_path, base, COLUMNS[:2], at=AT)
    quiet = _become(tmp_path, base, BASE, {**BASE, 1: ("x", 0.5)})
    loud = _become(tmp_path, base, BASE, {**BASE, 1: ("a", 7.0)})
    merged = merge_rows(tmp_path, base, ours, quiet, ["k"], at=AT)
    assert merged.content is not None
    assert schema_of(tmp_path, merged.content).names == ("k", "v")
    merged = merge_rows(tmp_path, base, ours, loud, ["k"], at=AT)
    assert [(one.what, one.ours, one.theirs) for one in merged.definition] == [
        ('column "d"', "dropped", "changed in 1 rows")
    ]


def test_rows_that_share_a_key_cannot_be_merged_and_are_named(tmp_path: Path) -> None:
    base = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    twice = _added(tmp_path, base, {2: ("again", None)})
    ours = _become(tmp_path, twice, {}, {})
    theirs = _become(tmp_path, base, BASE, {**BASE, 2: ("b", 0.5)})
    with pytest.raises(ConflictError) as caught:
        merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert caught.value.kind == "repeated-key"
    assert "(k): 2." in caught.value.message
    # Keys that theirs did not change are no matter of the merge.
    theirs = _become(tmp_path, base, BASE, {**BASE, 1: ("b", 0.5)})
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    assert row_count(tmp_path, merged.content) == 5


@pytest.mark.parametrize("ours", [BASE, {**BASE, 4: ("x", 0.5)}])
def test_a_row_added_under_a_key_that_was_there_is_refused(tmp_path: Path, ours: Rows) -> None:
    base, mine, _ = _forked(tmp_path, ours, BASE)
    theirs = _added(tmp_path, base, {2: ("again", None)})
    theirs = replace(
        tmp_path,
        theirs,
        _files(tmp_path, theirs, _sql({2: ("a", 0.5), 4: ("a", 0.5)})),
        [file.path for file in data_files(tmp_path, base) if _holds(file, {2: ("a", 0.5)})],
        at=AT,
    )
    with pytest.raises(ConflictError) as caught:
        merge_rows(tmp_path, base, mine, theirs, ["k"], at=AT)
    assert caught.value.kind == "repeated-key"


def _without_d(root: Path, table: TableContent) -> TableContent:
    return set_columns(root, table, COLUMNS[:2], at=AT)


def test_without_a_key_values_in_a_column_that_the_other_side_dropped_are_a_conflict(
    tmp_path: Path,
) -> None:
    base = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    fewer = _without_d(tmp_path, base)
    quiet, loud = (_added(tmp_path, base, {9: ("x", d)}) for d in (None, 7.0))
    rewritten = _become(tmp_path, base, BASE, {**BASE, 1: ("x", 0.5)})
    for theirs in (quiet, rewritten):
        merged = merge_rows(tmp_path, base, fewer, theirs, [], at=AT)
        assert merged.content is not None
        assert schema_of(tmp_path, merged.content).names == ("k", "v")
    for ours, theirs, told in (
        (fewer, loud, ("dropped", "changed in 1 rows")),
        (loud, fewer, ("changed in 1 rows", "dropped")),
    ):
        merged = merge_rows(tmp_path, base, ours, theirs, [], at=AT)
        assert merged.content is None
        found = [(one.what, one.ours, one.theirs) for one in merged.definition]
        assert found == [('column "d"', *told)]


@pytest.mark.parametrize("key", [[], ["k"]], ids=["keyless", "keyed"])
def test_rows_written_without_a_dropped_column_have_no_value_in_it(
    tmp_path: Path, key: list[str]
) -> None:
    """Not even its default, which they would have if the column were still read from them."""
    old = _become(tmp_path, create_table(tmp_path, "t", COLUMNS, at=AT), {}, BASE)
    early = _added(tmp_path, old, {7: ("early", 0.5)})
    made = Column(0, "s", "string", initial_default="none", write_default="none")
    base = evolve(tmp_path, old, lambda schema, ids: added(schema, ids, made), at=AT)
    own = _files(tmp_path, base, "SELECT 8::BIGINT k, 'a' v, 0.5::DOUBLE d, 'own' s")
    base = append(tmp_path, base, own, at=AT)

    fewer = set_columns(tmp_path, base, COLUMNS, at=AT)
    anew = _files(tmp_path, fewer, _sql({8: ("b", 0.5)}))
    fewer = replace(tmp_path, fewer, anew, [file.path for file in own], at=AT)
    # The other side took rows in from a branch that never had the column.
    taken = merge_rows(tmp_path, old, base, early, key, at=AT).content
    assert taken is not None
    for ours, theirs in ((fewer, taken), (taken, fewer)):
        merged = merge_rows(tmp_path, base, ours, theirs, key, at=AT)
        assert merged.definition == ()
        assert merged.content is not None
        expected = {**BASE, 7: ("early", 0.5), 8: ("b", 0.5)}
        assert _rows(tmp_path, merged.content) == expected


def test_rows_that_both_sides_made_alike_are_not_written_again(tmp_path: Path) -> None:
    alike: Rows = {**BASE, 1: ("same", 0.5), 6: ("new", None)}
    base, ours, theirs = _forked(tmp_path, alike, alike)
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged == RowMerge(ours)

    theirs = _become(tmp_path, theirs, alike, {**alike, 3: ("theirs", 0.5)})
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    assert (merged.added, merged.changed, merged.removed) == (0, 1, 0)
    assert _rows(tmp_path, merged.content) == {**alike, 3: ("theirs", 0.5)}
    (even,) = (file.path for file in data_files(tmp_path, ours) if _holds(file, {2: ("a", 0.5)}))
    assert even in {file.path for file in data_files(tmp_path, merged.content)}


def test_where_ours_has_their_rows_already_it_still_gets_their_columns(tmp_path: Path) -> None:
    alike: Rows = {**BASE, 1: ("same", 0.5)}
    base, ours, theirs = _forked(tmp_path, alike, alike)
    theirs = set_columns(tmp_path, theirs, (*COLUMNS, Column(0, "more", "long")), at=AT)
    merged = merge_rows(tmp_path, base, ours, theirs, ["k"], at=AT)
    assert merged.content is not None
    assert merged.changed == 0
    assert schema_of(tmp_path, merged.content).names == ("k", "v", "d", "more")
    assert data_files(tmp_path, merged.content) == data_files(tmp_path, ours)


@pytest.mark.parametrize(
    ("kind", "sides", "cut", "exact"),
    [
        ("int", ("1", "2"), "1.7", "7"),
        ("decimal(9,2)", ("1", "2"), "1.239", "1.23"),
        ("date", ("2025-01-01", "2025-01-02"), "2026-01-01 12:00:00", "2026-01-01"),
        ("time", ("10:00:00", "11:00:00"), "10:00:00.1234567", "10:00:00.123456"),
        (
            "timestamp",
            ("2025-01-01", "2025-01-02"),
            "2026-01-01 12:00:00+02",
            "2026-01-01 12:00:00.5",
        ),
    ],
)
def test_a_given_value_that_a_cast_would_cut_is_refused(
    tmp_path: Path, kind: str, sides: tuple[str, str], cut: str, exact: str
) -> None:
    columns = [Column(0, "k", "long"), Column(0, "v", kind)]
    base = create_table(tmp_path, "t", columns, at=AT)
    rows = (f"SELECT 1::BIGINT k, '{text}'::{columns[1].sql_type} v" for text in sides)
    ours, theirs = (append(tmp_path, base, _files(tmp_path, base, row), at=AT) for row in rows)

    def merged(value: str) -> RowMerge:
        given = Resolution({(("1",), "v"): Choice(Take.GIVEN, value)})
        return merge_rows(tmp_path, base, ours, theirs, ["k"], given, at=AT)

    with pytest.raises(InvalidError) as caught:
        merged(cut)
    assert caught.value.kind == "bad-value"
    content = merged(exact).content
    assert content is not None
    with DuckDB(tmp_path / "staging") as engine:
        engine.view(file_set(tmp_path, content, "t"))
        assert engine.rows("SELECT v::VARCHAR FROM t") == [(exact,)]


def _ordered(root: Path, table: TableContent, keys: range) -> TableContent:
    sql = f"SELECT i AS k, 'a' v, 0.5::DOUBLE d FROM range({keys.start}, {keys.stop}) t(i)"
    return append(root, table, _files(root, table, sql), at=AT)


def test_a_key_that_theirs_added_is_not_there_already_in_a_file_that_nobody_changed(
    tmp_path: Path,
) -> None:
    base = create_table(tmp_path, "t", COLUMNS, at=AT)
    for start in (0, 100, 200):
        base = _ordered(tmp_path, base, range(start, start + 100))
    ours = _added(tmp_path, base, {1000: ("mine", None)})
    theirs = _added(tmp_path, base, {150: ("again", None), 2000: ("new", None)})
    for states in ((base, ours, theirs), (base, base, theirs)):
        with pytest.raises(ConflictError) as caught:
            _merged(tmp_path, states, ["k"])
        assert caught.value.kind == "repeated-key"
        assert "(k): 150." in caught.value.message
    # What ours has twice already is no matter of the merge.
    theirs = _added(tmp_path, base, {3000: ("new", None)})
    twice = _added(tmp_path, base, {150: ("again", None)})
    assert _merged(tmp_path, (base, twice, theirs), ["k"]).content is not None


def test_only_files_with_room_for_an_added_key_are_read(tmp_path: Path) -> None:
    base = create_table(tmp_path, "t", COLUMNS, at=AT)
    for start in (0, 100, 200, 300):
        base = _ordered(tmp_path, base, range(start, start + 100, 2))
    ours = _added(tmp_path, base, {1000: ("mine", None)})
    theirs = _added(tmp_path, base, {-5: ("low", None), 250: ("again", None), 999: ("high", None)})
    for file in data_files(tmp_path, base):
        if file.columns[0].lower != "200":
            Path(file.path).write_bytes(b"not Parquet")
    with pytest.raises(ConflictError) as caught:
        _merged(tmp_path, (base, ours, theirs), ["k"])
    assert "(k): 250." in caught.value.message


@pytest.mark.parametrize(
    ("kind", "there", "other"),
    [
        ("string", "'m'", "'zz'"),
        ("decimal(9,2)", "1.50", "12.25"),
        ("date", "'2026-01-02'", "'0001-01-01'"),
        ("timestamp", "'2026-01-02 00:00:00'", "'2026-01-02 00:00:00.5'"),
        ("timestamptz", "'2026-01-02 00:00:00+02'", "'12026-01-02 00:00:00+00'"),
        ("double", "1.5", "'nan'"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'", "uuid()"),
        ("binary", "'a'", "'b'"),
        ("long", "NULL", "7"),
    ],
)
def test_keys_of_every_type_are_found_again(
    tmp_path: Path, kind: str, there: str, other: str
) -> None:
    columns = [Column(0, "k", kind), Column(0, "v", "long")]
    empty = create_table(tmp_path, "t", columns, at=AT)

    def with_keys(table: TableContent, *keys: str) -> TableContent:
        listed = ", ".join(f"({key}::{columns[0].sql_type}, 1::BIGINT)" for key in keys)
        sql = f"SELECT k, v FROM (VALUES {listed}) t(k, v)"
        return append(tmp_path, table, _files(tmp_path, table, sql), at=AT)

    base = with_keys(empty, there)
    theirs = with_keys(base, there, other)
    with pytest.raises(ConflictError) as caught:
        _merged(tmp_path, (base, base, theirs), ["k"])
    assert caught.value.kind == "repeated-key"
    assert _merged(tmp_path, (base, base, with_keys(base, other)), ["k"]).content is not None
