"""Erased rows are gone from every commit, and nothing else is; compaction and gc change no row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from commands import KILLED, run_script, start_script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traces import holds

from instep.canonical import JsonObject
from instep.cli.erase_rows import ErasedRows, WouldErase, erased_rows
from instep.cli.wholeness import check, examine
from instep.engines.duckdb import DuckDB
from instep.engines.schema import Column
from instep.errors import InvalidError, NotFoundError, UnavailableError
from instep.history.collection import collect
from instep.history.edits import Edit, publish
from instep.history.locks import rewriting, writing
from instep.history.refs import RefKind, create_ref
from instep.history.repository import Repository, create_repository, open_repository
from instep.history.retention import Policy
from instep.history.seals import take_seal
from instep.lake import Lake, retention_of
from instep.tables.compact import compact_state
from instep.tables.content import TableContent
from instep.tables.diff import diff_rows
from instep.tables.profile_keep import profile_table
from instep.tables.read import data_files, file_set, metadata_path, schema_of
from instep.tables.small_files import MANY_FILES
from instep.tables.upkeep import TIERS_BYTES, compact_table, look_after
from instep.tables.write import append, create_table, data_folder, replace, set_columns

COLUMNS = (Column(0, "n", "long"), Column(0, "who", "string"))
SECRET = "person-17"


def _never(content: TableContent) -> bool:
    return False


def _clock() -> Callable[[], datetime]:
    numbers = count()
    return lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(numbers))


def _repo(root: Path) -> Repository:
    return create_repository(root / "lake", _clock(), "ana")


def _commit(repo: Repository, table: TableContent, ref: str = "main") -> str:
    changes: dict[str, JsonObject | None] = {"table/sales": table.to_content()}
    with repo.store.transaction(ref) as tx:
        edit = Edit(repo.resolve(ref), changes, "ana", "More", "run_0")
        return publish(tx, repo, ref, edit).id


def _appended(
    repo: Repository, table: TableContent, rows: Sequence[tuple[int, str]]
) -> TableContent:
    listed = ", ".join(f"({n}, '{who}')" for n, who in rows)
    schema = schema_of(repo.root, table)
    more = "".join(f", NULL::DOUBLE AS {name}" for name in schema.names[2:])
    with DuckDB(repo.root / "staging") as engine:
        files = engine.write(
            f"SELECT n::BIGINT AS n, who{more} FROM (VALUES {listed}) v(n, who)",
            schema,
            data_folder(repo.root, table),
        )
    return append(repo.root, table, files, at=repo.clock())


def _rows(repo: Repository, commit: str) -> Counter[tuple[int, str]]:
    table = _table(repo, commit)
    with DuckDB(repo.root / "staging") as engine:
        engine.view(file_set(repo.root, table, "t"))
        return Counter(engine.rows("SELECT n, who FROM t"))


def _table(repo: Repository, commit: str) -> TableContent:
    return TableContent.from_content(repo.content(commit, "table/sales"))


def _filled(repo: Repository) -> list[str]:
    """A table that is appended to, widened, and loses a file; each state is a commit."""
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    commits = []
    for first in (0, 10, 20):
        table = _appended(repo, table, [(first, "ana"), (first + 1, SECRET), (first + 2, "ben")])
        commits.append(_commit(repo, table))
    table = set_columns(repo.root, table, (*COLUMNS, Column(0, "u", "double")), at=repo.clock())
    table = _appended(repo, table, [(30, "cleo")])
    commits.append(_commit(repo, table))
    oldest = data_files(repo.root, table)[0]
    table = replace(repo.root, table, (), [oldest.path], at=repo.clock())
    profile_table(repo.root, table)
    commits.append(_commit(repo, table))
    return commits


def test_rows_are_gone_from_every_commit_and_every_file_and_the_rest_is_as_it_was(
    tmp_path: Path,
) -> None:
    from pyiceberg.table import StaticTable

    repo = _repo(tmp_path)
    commits = _filled(repo)
    before = [_rows(repo, commit) for commit in commits]
    assert holds(repo.root, SECRET)

    told = erased_rows(repo, "sales", f"who = '{SECRET}'", "Request 4711.", "ben", True)
    assert isinstance(told, WouldErase)
    assert (told.found.rows, told.found.files) == (3, 3)
    assert [_rows(repo, commit) for commit in commits] == before

    done = erased_rows(repo, "sales", f"who = '{SECRET}'", "Request 4711.", "ben", False)

    assert isinstance(done, ErasedRows)
    record = done.erasure
    assert (record.rows, record.files, record.actor) == (3, 3, "ben")
    assert record.ended_at is not None
    assert any("backups" in one for one in record.remains)
    assert holds(repo.root, SECRET) == []
    expected = [Counter({row: n for row, n in one.items() if row[1] != SECRET}) for one in before]
    assert [_rows(repo, commit) for commit in commits] == expected
    for commit, rows in zip(commits, expected, strict=True):
        path = str(metadata_path(repo.root, _table(repo, commit)))
        read = StaticTable.from_metadata(path).scan().to_arrow()
        assert sorted(int(n or 0) for n in read["n"].to_pylist()) == sorted(
            n for n, _ in rows.elements()
        )
    assert check(repo)["table states"] >= len(commits)
    profile = {one.name: one for one in profile_table(repo.root, _table(repo, commits[-1]))}
    assert all(value != SECRET for value, _ in profile["who"].frequent)
    diff = diff_rows(repo.root, _table(repo, commits[0]), _table(repo, commits[1]), ["n"])
    assert (diff.added, diff.removed, diff.changed) == (2, 0, 0)
    with repo.store.transaction() as tx:
        assert take_seal(tx, repo.clock(), with_records=True)
        sealed = {str(row[0]) for row in tx.rows("select table_name from sealed_records")}
    assert {"row_erasures", "erased_files", "erased_states"} <= sealed
    dump = (repo.root / "catalog.sqlite").read_bytes()
    assert SECRET.encode() not in dump


def test_after_an_erasure_records_are_sealed_again_and_again(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    _filled(repo)
    erased_rows(repo, "sales", f"who = '{SECRET}'", "Request 4711.", "ben", False)

    for _ in range(2):
        with repo.store.transaction() as tx:
            assert take_seal(tx, repo.clock(), with_records=True)
        check(repo)


def test_rows_go_from_files_in_folders_of_other_writers(tmp_path: Path) -> None:
    import pyarrow as pa

    repo = _repo(tmp_path)
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve("main"), owner="ana", at=repo.clock())
    rows = pa.table({"n": [1, 2, 3], "who": [SECRET, "ben", SECRET], "g": ["a", "a", "b"]})
    with Lake(repo).edit("work", message="More", author="ana") as edit:
        columns = {"n": "long", "who": "string", "g": "string"}
        edit.create("sales", columns=columns, partition=["g"])
        edit.catalog.load_table("default.sales").append(rows)
    assert any(path.parent.name == "g=a" for path in holds(repo.root, SECRET))

    erased_rows(repo, "sales", f"who = '{SECRET}'", "Request 4711.", "ben", False)

    assert holds(repo.root, SECRET) == []
    assert _rows(repo, repo.resolve("work")) == Counter([(2, "ben")])
    check(repo)


def test_rows_are_found_by_nan_that_other_writers_wrote(tmp_path: Path) -> None:
    import pyarrow as pa

    repo = _repo(tmp_path)
    with repo.store.transaction() as tx:
        create_ref(tx, "work", RefKind.BRANCH, repo.resolve("main"), owner="ana", at=repo.clock())
    rows = pa.table({"n": [1, 2, 3], "who": ["ana", SECRET, "ben"], "x": [1.0, float("nan"), 2.0]})
    with Lake(repo).edit("work", message="More", author="ana") as edit:
        edit.create("sales", columns={"n": "long", "who": "string", "x": "double"})
        edit.catalog.load_table("default.sales").append(rows)

    erased_rows(repo, "sales", "isnan(x)", "Request 4711.", "ben", False)

    assert holds(repo.root, SECRET) == []
    assert _rows(repo, repo.resolve("work")) == Counter([(1, "ana"), (3, "ben")])
    check(repo)


def test_a_table_goes_on_after_an_erasure_and_a_file_may_lose_all_of_its_rows(
    tmp_path: Path,
) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    erased_rows(repo, "sales", "n BETWEEN 10 AND 29", "Wrong.", "ben", False)
    table = _appended(repo, _table(repo, commits[-1]), [(40, "dora")])
    last = _commit(repo, table)
    assert sorted(n for n, _ in _rows(repo, last)) == [30, 40]
    assert sorted(n for n, _ in _rows(repo, commits[1])) == [0, 1, 2]
    assert _rows(repo, commits[2]) == _rows(repo, commits[0])
    check(repo)


def test_rows_are_found_by_the_names_that_columns_have_now_and_deeper_columns_stay(
    tmp_path: Path,
) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    erased_rows(repo, "sales", "u IS NULL AND n = 30", "Wrong.", "ben", False)
    assert [n for n, _ in _rows(repo, commits[3]) if n >= 30] == []
    assert schema_of(repo.root, _table(repo, commits[0])).names == ("n", "who")
    check(repo)


def test_a_condition_that_cannot_be_read_erases_nothing(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    before = _rows(repo, commits[0])
    with pytest.raises(InvalidError):
        erased_rows(repo, "sales", "nobody = 3", "Wrong.", "ben", False)
    with pytest.raises(InvalidError):
        erased_rows(repo, "sales", "n = 3) or (true", "Wrong.", "ben", False)
    with pytest.raises(NotFoundError):
        erased_rows(repo, "nothing", "n = 3", "Wrong.", "ben", False)
    with repo.store.reading() as tx:
        assert tx.rows("select id from row_erasures") == []
    assert _rows(repo, commits[0]) == before


def test_while_an_older_writer_is_at_work_files_stay_and_a_second_act_ends_it(
    tmp_path: Path,
) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    with writing(repo.root, repo.store):
        late = _appended(repo, _table(repo, commits[-1]), [(50, SECRET)])
        with pytest.raises(UnavailableError) as error:
            erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
        assert error.value.kind == "writers-at-work"
        last = _commit(repo, late)
        assert sum(who == SECRET for _, who in _rows(repo, last)) == 3
        assert all(who != SECRET for _, who in _rows(repo, commits[-1]))
    done = erased_rows(repo, "sales", f"who = '{SECRET}'", "Request.", "ben", False)
    assert isinstance(done, ErasedRows)
    assert done.erasure.id == error.value.facts["erasure"]
    assert all(who != SECRET for _, who in _rows(repo, last))
    assert holds(repo.root, SECRET) == []
    check(repo)


def test_a_state_in_whose_stead_something_stands_that_no_record_explains_is_damage(
    tmp_path: Path,
) -> None:
    repo = _repo(tmp_path)
    _filled(repo)
    erased_rows(repo, "sales", "n = 0", "Wrong.", "ben", False)
    with repo.store.transaction() as tx:
        tx.execute("delete from erased_states", ())
    kinds = {finding.kind for finding in examine(repo, Counter())}
    assert kinds == {"unexplained-erasure"}


_ERASE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from instep.cli.erase_rows import erased_rows
from instep.history.repository import open_repository
repo = open_repository(Path(sys.argv[1]), lambda: datetime(2027, 1, 1, tzinfo=UTC))
erased_rows(repo, "sales", "who = 'person-17'", "Request.", "ben", False)
"""


def _killed_everywhere(tmp_path: Path, every: bool) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    import shutil

    saved = tmp_path / "saved"
    shutil.copytree(repo.root, saved)
    trace = tmp_path / "trace"
    assert run_script(_ERASE, str(repo.root), trace=str(trace)).code == 0
    expected = [_rows(repo, commit) for commit in commits]
    passed = trace.read_text().split()
    places = passed if every else [p for p in passed if "erase.rows" in p][::7]
    assert len({p.partition(":")[0] for p in passed if "erase.rows" in p}) >= 8
    for place in ("tables.replacement.before", "tables.replacement.decided", *places):
        shutil.rmtree(repo.root)
        shutil.copytree(saved, repo.root)
        assert run_script(_ERASE, str(repo.root), fault=place).code == KILLED, place
        for commit, rows in zip(commits, expected, strict=True):
            there = _rows(repo, commit)
            assert Counter({r: n for r, n in there.items() if r[1] != SECRET}) == rows, place
        assert run_script(_ERASE, str(repo.root)).code == 0, place
        assert [_rows(repo, commit) for commit in commits] == expected, place
        assert holds(repo.root, SECRET) == [], place
        check(open_repository(repo.root, _clock()))


def test_an_erasure_that_is_killed_is_completed_by_the_next(tmp_path: Path) -> None:
    _killed_everywhere(tmp_path, every=False)


@pytest.mark.long
def test_an_erasure_that_is_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    _killed_everywhere(tmp_path, every=True)


def test_while_a_table_is_rewritten_it_is_neither_compacted_nor_erased_from(
    tmp_path: Path,
) -> None:
    repo = _repo(tmp_path)
    table = _table(repo, _filled(repo)[-1])
    with rewriting(repo.root, table.uuid):
        for act in (
            lambda: compact_table(repo, "main", "sales", _never),
            lambda: erased_rows(repo, "sales", "n = 0", "Wrong.", "ben", False),
        ):
            with pytest.raises(UnavailableError) as error:
                act()
            assert error.value.kind == "rewriting"


def test_many_small_appends_are_put_together_and_say_so(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    told = []
    with DuckDB(repo.root / "staging") as engine:
        schema = schema_of(repo.root, table)
        for n in range(MANY_FILES + 1):
            sql = f"SELECT {n}::BIGINT AS n, 'ana' AS who"
            files = engine.write(sql, schema, data_folder(repo.root, table))
            table = append(repo.root, table, files, at=repo.clock())
            _commit(repo, table)
            told.append(look_after(repo, "main", "sales", _never))
    assert [n for n, text in enumerate(told, 1) if text] == [MANY_FILES]
    assert told[MANY_FILES - 1].startswith(f"sales: {MANY_FILES} files")
    assert len(data_files(repo.root, table)) == 2


def test_after_appends_a_file_that_is_large_for_its_tier_is_left_alone(tmp_path: Path) -> None:
    """Otherwise each look would write again all that came before, and at the bound nothing."""
    repo = _repo(tmp_path)
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    some = "SELECT range AS n, hash(range)::VARCHAR AS who FROM range(100000)"
    one = "SELECT 1::BIGINT AS n, 'ana' AS who"
    with DuckDB(repo.root / "staging") as engine:
        schema, folder = schema_of(repo.root, table), data_folder(repo.root, table)
        for sql in (some, *[one] * (2 * MANY_FILES - 1)):
            table = append(repo.root, table, engine.write(sql, schema, folder), at=repo.clock())
    _commit(repo, table)
    large = data_files(repo.root, table)[0]
    assert large.size_bytes > TIERS_BYTES[0]
    assert look_after(repo, "main", "sales", _never)
    left = data_files(repo.root, table)
    assert len(left) == 2
    assert large in left


def test_what_follows_an_arrival_never_fails_it(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    assert "not compacted" in look_after(repo, "main", "nothing", _never)


_COMPACT = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from instep.history.repository import open_repository
from instep.tables.upkeep import compact_table
repo = open_repository(Path(sys.argv[1]), lambda: datetime(2027, 1, 1, tzinfo=UTC))
from instep.errors import UnavailableError
try:
    print(compact_table(repo, "main", "sales", lambda content: False).groups)
except UnavailableError as error:
    print(error.kind)
"""


def test_of_compactions_and_appends_at_once_nothing_is_lost(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    before = [_rows(repo, commit) for commit in commits]
    running = [start_script(_COMPACT, str(repo.root)) for _ in range(3)]
    table = _table(repo, commits[-1])
    for n in range(5):
        table = _appended(repo, table, [(100 + n, "eve")])
        commits.append(_commit(repo, table))
        before.append(before[-1] + Counter({(100 + n, "eve"): 1}))
    ended = [one.done() for one in running]
    assert [one.code for one in ended] == [0, 0, 0], ended
    assert {one.out.strip() for one in ended} <= {"0", "1", "rewriting"}
    assert [_rows(repo, commit) for commit in commits] == before
    compact_table(repo, "main", "sales", _never)
    assert len(data_files(repo.root, _table(repo, repo.resolve("main")))) == 1
    assert [_rows(repo, commit) for commit in commits] == before
    check(repo)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(0, 5)),
        st.tuples(st.just("branch"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 3), st.integers(0, 1)),
        st.tuples(st.just("erase"), st.just(0), st.integers(0, 5)),
        st.tuples(st.just("gc"), st.just(0), st.just(0)),
    ),
    min_size=3,
    max_size=14,
)


def _history(folder: Path, steps: Sequence[tuple[str, int, int]]) -> None:
    """Plays the steps on a lake and on bags of rows; every commit must be what the bag says."""
    repo = _repo(folder)
    table = create_table(repo.root, "sales", COLUMNS, at=repo.clock())
    model: dict[str, Counter[tuple[int, str]]] = {_commit(repo, table): Counter()}
    refs = ["main"]
    numbers = count()
    for act, at, value in steps:
        ref = refs[at % len(refs)]
        head = repo.resolve(ref)
        table = _table(repo, head)
        match act:
            case "append":
                new = [(next(numbers), f"p{(value + n) % 6}") for n in range(value + 1)]
                model[_commit(repo, _appended(repo, table, new), ref)] = model[head] + Counter(new)
            case "branch":
                name = f"b{len(refs)}"
                with repo.store.transaction() as tx:
                    create_ref(tx, name, RefKind.BRANCH, head, owner="ana", at=repo.clock())
                refs.append(name)
            case "compact":
                compact_table(repo, ref, "sales", _never, keeps_past=bool(value))
            case "erase":
                erased_rows(repo, "sales", f"who = 'p{value}'", "Why not.", "ben", False)
                model = {
                    commit: Counter({r: n for r, n in rows.items() if r[1] != f"p{value}"})
                    for commit, rows in model.items()
                }
                assert holds(repo.root, f"p{value}") == []
            case "gc":
                collect(repo, retention_of(repo), Policy(keep_days=0))
    for commit, expected in model.items():
        assert _rows(repo, commit) == expected
    check(repo)


@given(_STEPS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_of_upkeep_keeps_the_rows_of_every_commit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    _history(tmp_path_factory.mktemp("history"), steps)


@pytest.mark.long
@given(_STEPS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_histories_of_upkeep_keep_the_rows_of_every_commit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    _history(tmp_path_factory.mktemp("history"), steps)


def test_files_of_a_compacted_state_that_nothing_names_go_and_others_stay(tmp_path: Path) -> None:
    repo = _repo(tmp_path)
    commits = _filled(repo)
    rows = [_rows(repo, commit) for commit in commits]
    for commit in commits:
        compact_state(repo, _table(repo, commit), at=repo.clock())
    files = len(list(repo.root.glob("tables/*/data/*")))
    for _ in range(2):
        collect(repo, retention_of(repo), Policy(keep_days=0))
    assert len(list(repo.root.glob("tables/*/data/*"))) < files
    assert [_rows(repo, commit) for commit in commits] == rows
    check(repo)
