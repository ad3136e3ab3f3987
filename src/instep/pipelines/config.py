"""A pipeline as its file says it: steps, slices, and where each value came from.

Nothing is hidden: every key has either a place in the file or the origin "default", and
`PipelineConfig.values` lists them all. What is read here is only the file; SQL and Python are
read by `lineage.py` and `capture.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from instep.canonical import Json, JsonObject, digest_of
from instep.clock import Duration, Window, format_instant
from instep.documents import load_yaml, position, read_document
from instep.errors import InvalidError

if TYPE_CHECKING:
    from instep.documents import Tree
    from instep.models.spec import AcceptableError, TrainingSpec
    from instep.pipelines.shapes import AcceptableErrorShape, PipelineShape, TrainStepShape

DEFAULT = "default"

_ADDED = frozenset({"outside_period", "time"})
"""Keys of a step that are younger than lakes: by default they change no digest of before."""


@dataclass(frozen=True, slots=True)
class Value:
    """One resolved value: its name, its text, and where it came from ("file:line" or "default")."""

    name: str
    value: Json
    origin: str

    def to_json(self) -> dict[str, Json]:
        return {"name": self.name, "value": self.value, "origin": self.origin}


@dataclass(frozen=True, slots=True)
class TableSlice:
    """How a table is cut: by its column `time`, with `lookback` more before the start."""

    time: str
    lookback: timedelta = timedelta()

    def widen(self, window: Window) -> Window:
        """Returns the window of this table that a slice `window` needs."""
        return Window(window.start - self.lookback, window.end)


@dataclass(frozen=True, slots=True)
class SqlStep:
    """One `select` over tables by name, written as one table; by period if `every` is given.

    `time` is the column of that table which says of which period a row is.
    """

    name: str
    sql: str
    writes: str
    every: Duration | None
    why: str = ""
    time: str | None = None


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One model from one table: `path` and the name of the fitting function in it."""

    name: str
    path: str
    function: str
    reads: str
    model: str
    spec: TrainingSpec
    why: str = ""


Step = SqlStep | TrainStep


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """The meaning of one `pipelines/*.yaml`."""

    name: str
    path: str
    question: str
    decision: str
    owner: str
    keep: timedelta | None
    slice: Window
    slices: Mapping[str, TableSlice]
    steps: tuple[Step, ...]
    data: tuple[str, ...]
    values: tuple[Value, ...]

    def slice_of(self, table: str, window: Window) -> tuple[str, Window] | None:
        """Returns the column and window that cut `table` for a slice, or None: read whole."""
        cut = self.slices.get(table)
        return (cut.time, cut.widen(window)) if cut else None

    def values_of(self, step: Step) -> tuple[Value, ...]:
        """Returns the values that reach one step, and none that only describe it."""
        prefix = f"steps.{step.name}."
        names = {f"{prefix}why"}
        shared = ("acceptable_error.",) if isinstance(step, TrainStep) else ()
        return tuple(
            value
            for value in self.values
            if value.name.startswith((prefix, *shared))
            and value.name not in names
            and value.name != "acceptable_error.why"
        )

    def configuration_digest(self, step: Step) -> str:
        """Returns the digest of the values that reach a step: origins and reasons do not count."""
        return digest_of(
            "instep.configuration.v1",
            {
                value.name: exact(value.value)
                for value in self.values_of(step)
                if not _is_added_default(value)
            },
        )

    def resolved(self) -> JsonObject:
        """Returns every value by its name."""
        return {value.name: value.value for value in self.values}


def parse_pipeline(text: str, path: str) -> PipelineConfig:
    """Returns the pipeline that `text` describes.

    Raises:
        InvalidError (kinds "bad-yaml", "unknown-key", "bad-document", "empty-window").
    """
    from instep.pipelines.shapes import PipelineShape

    shape = read_document(text, path, PipelineShape)
    tree = load_yaml(text, path)
    steps = tuple(_step(step, shape, tree, path) for step in shape.steps)
    _refuse_clashes(steps, tree, path)
    return PipelineConfig(
        name=shape.pipeline,
        path=path,
        question=shape.question or "",
        decision=shape.decision or "",
        owner=shape.owner or "",
        keep=shape.keep.nominal if shape.keep else None,
        slice=Window(shape.slice.from_, shape.slice.to),
        slices={table: _table_slice(cut) for table, cut in shape.slices.items()},
        steps=steps,
        data=tuple(shape.data),
        values=tuple(_values(shape, tree, path)),
    )


def _is_added_default(value: Value) -> bool:
    """Says whether it stands for what every step did before there was such a key."""
    return value.origin == DEFAULT and value.name.rpartition(".")[2] in _ADDED


def output_key(step: Step) -> str:
    """Returns the key that a step makes."""
    return f"table/{step.writes}" if isinstance(step, SqlStep) else f"model/{step.model}"


def exact(value: Json) -> Json:
    """Returns `value` with each float as its shortest decimal text, so that it can have an id."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return repr(value)
        case Mapping():
            return {name: exact(item) for name, item in value.items()}
        case _:
            return [exact(item) for item in value]


def _table_slice(cut: Any) -> TableSlice:  # text or TableSliceShape, as validated
    if isinstance(cut, str):
        return TableSlice(cut)
    return TableSlice(cut.time, cut.lookback.nominal)


def _step(step: Any, shape: PipelineShape, tree: Tree, path: str) -> Step:  # one of two shapes
    from instep.pipelines.shapes import SqlStepShape

    if isinstance(step, SqlStepShape):
        return SqlStep(step.step, step.sql, step.writes, step.every, step.why or "", step.time)
    return _train_step(step, shape, tree, path)


def _train_step(step: TrainStepShape, shape: PipelineShape, tree: Tree, path: str) -> TrainStep:
    file, function = _function(step.train, step.step, tree, path)
    place = _place_of(tree, step.step)
    if shape.acceptable_error is None:
        raise _fault(
            tree,
            path,
            place,
            f'step "{step.step}" trains a model, and the pipeline has no acceptable_error: '
            "expected the error that the decision can bear. Add acceptable_error with a metric "
            "and a bound.",
        )
    try:
        spec = _spec(step, shape.acceptable_error)
    except InvalidError as error:
        line, column = position(tree, place)
        raise InvalidError(
            f"{path}:{line}:{column}: {error.message}", kind=error.kind, **error.facts
        ) from None
    return TrainStep(step.step, file, function, step.reads, step.model, spec, step.why or "")


def _spec(step: TrainStepShape, acceptable: AcceptableErrorShape) -> TrainingSpec:
    from instep.models.spec import (
        Candidate,
        KnownAfter,
        Outside,
        TrainingSpec,
        Windows,
        parse_metric,
    )

    windows = step.windows
    return TrainingSpec(
        model=step.model,
        target=step.target,
        key=tuple(step.key),
        time=step.time,
        known_after=KnownAfter(step.known_after.at_most, step.known_after.column),
        features=tuple(step.features),
        windows=Windows(windows.train, windows.test, windows.step or windows.test),
        candidates=tuple(Candidate(one.name, dict(one.params)) for one in step.candidates),
        choose=parse_metric(step.choose.metric),
        acceptable_error=_acceptable_error(acceptable),
        intended_for=step.intended_for,
        outside=Outside(step.outside),
        outside_period=Outside(step.outside_period),
        seed=step.seed,
    )


def _acceptable_error(shape: AcceptableErrorShape) -> AcceptableError:
    from instep.models.spec import AcceptableError, parse_metric

    metric = parse_metric(shape.metric, shape.at)
    wanted, other = ("at_most", "at_least") if metric.lower_is_better else ("at_least", "at_most")
    bound = getattr(shape, wanted)
    if bound is None or getattr(shape, other) is not None:
        raise InvalidError(
            f'acceptable_error of metric "{metric}" has no {wanted}, or has {other}: expected a '
            f"bound on the side that can be borne. Write {wanted} alone.",
            kind="bad-metric",
        )
    return AcceptableError(metric, bound, shape.why or "")


def _function(text: str, step: str, tree: Tree, path: str) -> tuple[str, str]:
    file, colon, function = text.rpartition(":")
    if colon and file.endswith(".py") and function.isidentifier():
        return file, function
    raise _fault(
        tree,
        path,
        _place_of(tree, step),
        f'step "{step}" names "{text}": expected a file and a function such as steps/delay.py:fit. '
        "Write it so.",
    )


def _place_of(tree: Tree, step: str) -> tuple[str | int, ...]:
    for index, item in enumerate(tree["steps"]):
        if item.get("step") == step:
            return ("steps", index)
    return ("steps",)


def _refuse_clashes(steps: tuple[Step, ...], tree: Tree, path: str) -> None:
    seen: set[str] = set()
    for index, step in enumerate(steps):
        for what, name in (("name", f"step {step.name}"), ("output", output_key(step))):
            if name in seen:
                raise _fault(
                    tree,
                    path,
                    ("steps", index),
                    f'the {what} of step "{step.name}" is used by two steps: expected one of its '
                    "own. Rename one.",
                )
            seen.add(name)


def _fault(tree: Tree, path: str, place: tuple[str | int, ...], text: str) -> InvalidError:
    line, column = position(tree, place)
    return InvalidError(f"{path}:{line}:{column}: {text}", kind="bad-document", path=path)


def _values(shape: PipelineShape, tree: Tree, path: str) -> Iterator[Value]:
    yield from _walk(shape, tree, path, (), "", without="steps")
    for index, step in enumerate(shape.steps):
        yield from _walk(step, tree, path, ("steps", index), f"steps.{step.step}.", without="step")


def _walk(
    value: Any,  # a shape, a mapping of names, or a leaf; pydantic has checked it
    tree: Tree,
    path: str,
    place: tuple[str | int, ...],
    prefix: str,
    without: str = "",
) -> Iterator[Value]:
    for name, item in _items(value):
        if name == without:
            continue
        here = (*place, name)
        if any(True for _ in _items(item)):
            yield from _walk(item, tree, path, here, f"{prefix}{name}.")
        else:
            yield Value(f"{prefix}{name}", _text(item), _origin(tree, path, here))


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    from instep.pipelines.shapes import Shape

    if isinstance(value, Shape):
        for name, field in type(value).model_fields.items():
            yield field.alias or name, getattr(value, name)
    elif isinstance(value, Mapping):
        yield from value.items()


def _origin(tree: Tree, path: str, place: tuple[str | int, ...]) -> str:
    inner = tree
    for step in place:
        if isinstance(inner, Mapping) and step not in inner:
            return DEFAULT
        if not isinstance(inner, Mapping | list):
            break  # a short form, such as a column's name for a slice: its parts are defaults
        inner = inner[step]  # type: ignore[index]  # the tree has the shape that was validated
    return _line(path, position(tree, place))


def _line(path: str, at: tuple[int, int]) -> str:
    return f"{path}:{at[0]}"


def _text(value: Any) -> Json:  # a validated leaf
    from instep.pipelines.shapes import Shape

    match value:
        case Duration():
            return str(value)
        case datetime():
            return format_instant(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {str(name): _text(item) for name, item in value.items()}
        case Shape():
            return {name: _text(item) for name, item in _items(value)}
        case list() | tuple():
            return [_text(item) for item in value]
        case _:
            return value  # type: ignore[no-any-return]  # a scalar: pydantic has checked it
