"""Whether two fitted models are the same: by parameters and arrays, never by bytes of a container.

An estimator is walked as pickling would walk it, but nothing is executed and no memory layout
counts: classes by name, numbers by value, arrays by type, shape and elements.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SUMMATION_TOLERANCE = 1e-6
"""The largest relative difference that another order of summing explains.

Boosted trees sum single-precision gradients: one unit in the last place of those is 6e-8, and a few
are carried into a leaf's value.
"""

_VERSION_KEYS = frozenset({"_sklearn_version"})
"""State that tells the runtime, which a run records elsewhere, and not what was learned."""

_DEPTH = 100
"""Levels of nesting that a model may have; deeper is taken for a cycle."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value inside an estimator: exact bytes, or numbers; `place` is the path to it."""

    place: str
    value: bytes | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Identical:
    """The same parameters and arrays, bit by bit."""

    def __str__(self) -> str:
        return "identical"


@dataclass(frozen=True, slots=True)
class EqualButForSummation:
    """The same but for the order in which floats were summed."""

    largest_relative_difference: float

    def __str__(self) -> str:
        return (
            "equal but for float summation order (largest relative difference "
            f"{self.largest_relative_difference:.1e})"
        )


@dataclass(frozen=True, slots=True)
class Different:
    """Not the same; `where` is the first place that differs."""

    where: str

    def __str__(self) -> str:
        return f"different (at {self.where})"


Sameness = Identical | EqualButForSummation | Different


def model_digest(estimator: object) -> str:
    """Returns the SHA-256 (hex) over the canonical parameters and arrays of `estimator`."""
    digest = hashlib.sha256(b"instep.model-digest.v1\n")
    for leaf in leaves(estimator):
        place = leaf.place.encode()
        if isinstance(leaf.value, bytes):
            data = b"x" + leaf.value
        else:
            shape = ",".join(map(str, leaf.value.shape)).encode()
            data = b"f" + shape + b":" + _bits(leaf.value)
        digest.update(struct.pack(">QQ", len(place), len(data)) + place + data)
    return digest.hexdigest()


def compare(before: object, after: object) -> Sameness:
    """Returns whether two fitted estimators are the same, and if not, how far apart."""
    ours, theirs = list(leaves(before)), list(leaves(after))
    largest = 0.0
    for mine, other in zip(ours, theirs, strict=False):
        if mine.place != other.place or type(mine.value) is not type(other.value):
            return Different(mine.place)
        if isinstance(mine.value, bytes) or isinstance(other.value, bytes):
            if mine.value != other.value:
                return Different(mine.place)
            continue
        distance = relative_difference(mine.value, other.value)
        if distance > SUMMATION_TOLERANCE:
            return Different(mine.place)
        largest = max(largest, distance)
        if not distance and _bits(mine.value) != _bits(other.value):
            largest = max(largest, 5e-324)
    if len(ours) != len(theirs):
        return Different("the number of values")
    return Identical() if not largest else EqualButForSummation(largest)


def relative_difference(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Returns the largest |a - b| over the larger magnitude; infinite if shapes or NaNs differ."""
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    same = (a == b) | np.isnan(a)
    x, y = a[~same], b[~same]
    if not len(x):
        return 0.0
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("inf")
    return float(np.max(np.abs(x - y) / np.maximum(np.abs(x), np.abs(y))))


def leaves(value: object, place: str = "model", depth: int = 0) -> Iterator[Leaf]:
    """Yields every value inside `value`, in an order that depends on names only.

    Raises:
        ValueError: nested deeper than any model, so probably a cycle.
    """
    if depth > _DEPTH:
        raise ValueError(f"{place} is nested too deeply to have a digest")
    match value:
        case None | bool() | int() | str() | bytes():
            yield Leaf(place, f"{type(value).__name__} {value!r}".encode())
        case float():
            yield Leaf(place, np.array([value]))
        case np.ndarray():
            yield from _array(value, place, depth)
        case np.dtype():
            yield Leaf(place, f"dtype {value.str}".encode())
        case np.generic():
            yield from _array(np.asarray(value), place, depth)
        case dict():
            names = sorted(value, key=lambda key: (type(key).__name__, repr(key)))
            yield Leaf(place, f"dict {len(names)}".encode())
            for name in names:
                if name not in _VERSION_KEYS:
                    yield from leaves(value[name], f"{place}[{name!r}]", depth + 1)
        case list() | tuple():
            yield Leaf(place, f"{type(value).__name__} {len(value)}".encode())
            for index, item in enumerate(value):
                yield from leaves(item, f"{place}[{index}]", depth + 1)
        case set() | frozenset():
            yield Leaf(place, f"set {sorted(map(repr, value))}".encode())
        case type():
            yield Leaf(place, f"class {_name(value)}".encode())
        case _ if callable(value) and hasattr(value, "__qualname__"):
            yield Leaf(place, f"function {_name(value)}".encode())
        case _:
            yield from _object(value, place, depth)


def _object(value: object, place: str, depth: int) -> Iterator[Leaf]:
    yield Leaf(place, f"object {_name(type(value))}".encode())
    reduced: Any = value.__reduce_ex__(2)
    if isinstance(reduced, str):
        yield Leaf(place, f"global {reduced}".encode())
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    yield from leaves(arguments, f"{place}()", depth + 1)
    yield from leaves(_without_versions(state), f"{place}.", depth + 1)
    if items is not None:
        yield from leaves(list(items), f"{place}[]", depth + 1)
    if pairs is not None:
        yield from leaves(dict(pairs), f"{place}{{}}", depth + 1)


def _without_versions(state: object) -> object:
    if isinstance(state, dict):
        return {name: item for name, item in state.items() if name not in _VERSION_KEYS}
    return state


def _array(array: npt.NDArray[Any], place: str, depth: int) -> Iterator[Leaf]:
    """Yields an array field by field: the padding between fields is not part of the value."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            yield from _array(array[name], f"{place}.{name}", depth)
    elif array.dtype.kind == "O":
        yield from leaves(array.tolist(), place, depth + 1)
    elif array.dtype.kind == "f":
        yield Leaf(f"{place}:{array.dtype.str[1:]}", np.asarray(array, dtype=np.float64))
    else:
        data = np.ascontiguousarray(array)
        data = data.astype(data.dtype.newbyteorder("<"), copy=False)
        yield Leaf(place, f"{data.dtype.str} {data.shape} ".encode() + data.tobytes())


def _bits(array: npt.NDArray[np.float64]) -> bytes:
    return np.ascontiguousarray(array).astype("<f8", copy=False).tobytes()


def _name(value: Any) -> str:  # a class or a function
    return f"{value.__module__}.{value.__qualname__}"
