"""The ids of this version, which every later one must give: tests/golden/history.json.

A changed value here means that lakes already written would be read as damaged. Nothing in the file
may change; what is new may be added, by running this module: `python tests/history/test_golden.py`
prints the file as this version has it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.canonical import (
    Json,
    JsonObject,
    canonical_bytes,
    canonical_bytes_of_parts,
    canonical_parts,
    digest_of,
    from_microseconds,
)
from instep.clock import system_clock
from instep.errors import InvalidError
from instep.history import tree
from instep.history.commits import make_commit
from instep.history.operations import append_operation
from instep.history.repository import Repository, create_repository

FILE = Path(__file__).parents[1] / "golden" / "history.json"
AT = 1_385_856_000_123_456

VALUES: dict[str, Json] = {
    "empty object": {},
    "empty list": [],
    "empty text": "",
    "null, true, false": [None, True, False],
    "whole numbers": [0, -1, 9_007_199_254_740_991, -9_007_199_254_740_991],
    "an instant in microseconds": AT,
    "names are ordered": {"b": 1, "a": 2, "A": 3, "": 4, "aa": 5, "10": 6, "9": 7},
    "order is by UTF-16: a surrogate pair stands before U+FB00": {
        "\ufb00": 1,
        "\U0001f600": 2,
        "\u20ac": 3,
        "\r": 4,
        "\u0080": 5,
        "1": 6,
        "\u00f6": 7,
    },
    "order is that of the NFC form": {"e\u0301": 1, "f": 2},
    "NFC of a value": "e\u0301 \u212b \u1e9b\u0323",
    "compatibility forms stay": "\ufb01 \u2460",
    "control characters are escaped": "".join(map(chr, range(0x20))),
    "quote and backslash are escaped, slash is not": '" \\ /',
    "delete, U+2028 and U+2029 are not escaped": "\u007f\u0080\u2028\u2029\ufeff",
    "beyond the first plane": "\U0001f600\U0010ffff",
    "nested": {"list": [{"b": [[]], "a": {}}, "x"], "deep": {"deep": {"deep": None}}},
}
TREES = {"0 keys": 0, "1 key": 1, "64 keys": 64, "65 keys": 65, "1000 keys": 1000}


def entries(count: int) -> dict[str, JsonObject | None]:
    kinds = ("table", "model", "contract")
    return {
        f"{kinds[0 if count <= 65 else number % 3]}/key_{number}": {
            "type": "instep.test.v1",
            "number": number,
            "text": f"\u00e9 {number}",
        }
        for number in range(count)
    }


def vectors(repo: Repository) -> dict[str, Any]:
    """Returns every vector as this version computes it."""
    at = from_microseconds(AT)
    first = make_commit("0" * 64, (), "ana", at, "An empty lake", "init")
    parents = (first.id, "f" * 64)
    second = make_commit("1" * 64, parents, "bén", at, 'Two\n"lines"', "change 12")
    trees = {}
    operations = []
    with repo.store.transaction() as tx:
        for name, count in TREES.items():
            empty = tree.empty_tree(tx, repo.nodes)
            trees[name] = tree.update(tx, repo.nodes, empty, entries(count))
        for before, after, kind in (
            (None, first.id, "create"),
            (first.id, second.id, "merge"),
            (second.id, None, "delete"),
        ):
            made = append_operation(
                tx, ref="try", before=before, after=after, actor="ana", at=at, kind=kind, why="é"
            )
            operations.append(made.id)
    return {
        "canonical": {
            name: {
                "bytes": canonical_bytes(value).decode(),
                "digest": digest_of("instep.test.v1", value),
            }
            for name, value in VALUES.items()
        },
        "commits": {"without parents": first.id, "with two parents": second.id},
        "operations of one chain": operations,
        "trees": trees,
    }


def test_every_golden_vector_is_as_it_was(repo: Repository) -> None:
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    found = vectors(repo)
    for name, vector in kept["canonical"].items():
        assert found["canonical"][name] == vector, name
    assert found == kept


def test_a_digest_is_that_of_the_kind_a_line_end_and_the_bytes() -> None:
    kept = json.loads(FILE.read_text(encoding="utf-8"))["canonical"]
    for name, vector in kept.items():
        data = b"instep.test.v1\n" + vector["bytes"].encode()
        assert hashlib.sha256(data).hexdigest() == vector["digest"], name
        value = json.loads(vector["bytes"])
        assert canonical_bytes(value).decode() == vector["bytes"], name


def test_what_is_the_same_in_nfc_has_one_form() -> None:
    assert canonical_bytes({"e\u0301": 1, "f": 2}) == canonical_bytes({"f": 2, "\u00e9": 1})
    with pytest.raises(InvalidError) as caught:
        canonical_bytes({"files": {"steps/e\u0301.sql": "a", "steps/\u00e9.sql": "b"}})
    assert caught.value.kind == "same-name"


@pytest.mark.parametrize("value", [1.0, {"a": [0.5]}, b"x", {"a": {1, 2}}])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no canonical form"):
        canonical_bytes(value)


def test_half_a_surrogate_pair_has_no_canonical_form() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_bytes("\ud83d")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_the_form_of_canonical_parts_is_the_canonical_form(value: Json) -> None:
    try:
        expected = canonical_bytes(value)
    except InvalidError:
        return
    assert canonical_bytes_of_parts(canonical_parts(value)) == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        lake = create_repository(Path(folder) / "lake", system_clock, "ana")
        print(json.dumps(vectors(lake), ensure_ascii=True, indent=1))
