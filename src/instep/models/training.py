"""Trains the candidates on identical windows, chooses one, and fits it for the time to come.

Always: a row trains only if its target was known before the cut; rows are put in one order first,
and arithmetic runs on one thread, so the same rows give the same parameters. Rows without a target
are counted, neither trained on nor scored. What this module is given is one Arrow table and a
function; it reads and writes nothing.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from instep.canonical import from_microseconds, to_microseconds
from instep.clock import Window, format_instant
from instep.errors import InvalidError
from instep.models.card import Counts
from instep.models.choice import CandidateScores, Choice, WindowScore, choose
from instep.models.metrics import Outcomes, Scores, measure, noise
from instep.models.profile import TrainingProfile, profile_training
from instep.models.signature import Matrix, Signature, learn_signature
from instep.models.spec import CONSTANT, Candidate, TrainingSpec
from instep.models.windows import Fold, Folds, final_window, walk_forward


class Estimator(Protocol):
    """What a `fit` function gives back: a classifier of 0 and 1 in the manner of scikit-learn."""

    classes_: npt.NDArray[np.generic]

    def predict_proba(self, features: Matrix) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What a `fit` function is given.

    `features` is a matrix, one row per event and one column per name in `names`; text is a category
    code (0, 1, ...) where `categorical` says so, and what is missing is NaN. `target` holds 0 and
    1. Rows are in the order of their time.
    """

    features: Matrix
    target: Outcomes
    names: tuple[str, ...]
    categorical: tuple[bool, ...]


Fit: TypeAlias = Callable[[TrainingRows, dict[str, Any], int], Estimator]
"""`fit(train, params, seed) -> estimator`: written by the user, without importing Instep."""

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that a training step found, and the estimator that it made."""

    spec: TrainingSpec
    slice: Window
    folds: Folds
    trained: Window
    candidates: tuple[CandidateScores, ...]
    choice: Choice
    counts: Counts
    signature: Signature
    profile: TrainingProfile
    estimator: Estimator


@dataclass(frozen=True, slots=True)
class _Rows:
    """The slice in order of time, with what every window asks of it; instants are microseconds."""

    table: pa.Table
    time: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    target: Outcomes
    has_target: npt.NDArray[np.bool_]

    def train(self, window: Window) -> npt.NDArray[np.bool_]:
        return self._inside(window) & self.has_target & (self.known < to_microseconds(window.end))

    def test(self, window: Window) -> npt.NDArray[np.bool_]:
        return self._inside(window)

    def _inside(self, window: Window) -> npt.NDArray[np.bool_]:
        start, end = to_microseconds(window.start), to_microseconds(window.end)
        return (self.time >= start) & (self.time < end)


@dataclass(frozen=True, slots=True)
class _Split:
    """One fold, the same for every candidate: the rows that train, and those that are scored."""

    fold: Fold
    train: TrainingRows
    matrix: Matrix
    observed: Outcomes
    time: npt.NDArray[np.int64]
    unknown: int
    unseen: int


@dataclass(frozen=True, slots=True)
class _Scored:
    """One candidate's scores of the tested rows of one fold, with the rows' time and outcome."""

    score: WindowScore
    time: npt.NDArray[np.int64]
    observed: Outcomes
    predicted: Scores


def train(
    table: pa.Table, fit: Fit, spec: TrainingSpec, within: Window, progress: Progress
) -> Training:
    """Returns what training `spec` on the rows of `table` in the slice `within` gives.

    `progress` is told one line per fit.

    Raises:
        InvalidError: kinds "no-such-column", "bad-target", "unknown-outcome-time",
            "known-too-late", "known-too-early", "duplicate-key", "no-windows", "windows-overlap",
            "one-outcome", "unsupported-feature", "not-an-estimator".
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

    rows = _prepare(table, spec, within)
    folds = walk_forward(within, spec.windows)
    candidates = (Candidate(CONSTANT, {}), *spec.candidates)
    scored: dict[str, list[_Scored]] = {candidate.name: [] for candidate in candidates}
    with threadpool_limits(limits=1):
        for fold in folds.folds:
            split = _split(rows, fold, spec)
            for candidate in candidates:
                progress(f"{candidate.name}: test {fold.test}")
                scored[candidate.name].append(_score(candidate, split, fit, spec))
        scores = tuple(
            CandidateScores(c.name, c.params, tuple(one.score for one in scored[c.name]))
            for c in candidates
        )
        choice = choose(scores, spec.choose, spec.acceptable_error)
        chosen = next(c for c in candidates if c.name == choice.name)
        window = final_window(within, spec.windows)
        progress(f"{chosen.name}: final fit on {window}")
        last = rows.table.filter(pa.array(rows.train(window)))
        train, signature = _training_rows(last, rows.target[rows.train(window)], spec, window)
        estimator = _fit(chosen, train, fit, spec)
    return Training(
        spec=spec,
        slice=within,
        folds=folds,
        trained=window,
        candidates=scores,
        choice=choice,
        counts=Counts(
            rows=rows.table.num_rows,
            unknown=int((~rows.has_target).sum()),
            trained=len(train.target),
            positives=int(train.target.sum()),
        ),
        signature=signature,
        profile=profile_training(
            last,
            signature,
            train.target,
            np.concatenate([one.time for one in scored[choice.name]]),
            np.concatenate([one.observed for one in scored[choice.name]]),
            np.concatenate([one.predicted for one in scored[choice.name]]),
        ),
        estimator=estimator,
    )


def _split(rows: _Rows, fold: Fold, spec: TrainingSpec) -> _Split:
    training, testing = rows.train(fold.train), rows.test(fold.test)
    train, signature = _training_rows(
        rows.table.filter(pa.array(training)), rows.target[training], spec, fold.train
    )
    known = testing & rows.has_target
    matrix, unseen = signature.matrix_of(rows.table.filter(pa.array(known)))
    return _Split(
        fold=fold,
        train=train,
        matrix=matrix[~unseen],
        observed=rows.target[known][~unseen],
        time=rows.time[known][~unseen],
        unknown=int((testing & ~rows.has_target).sum()),
        unseen=int(unseen.sum()),
    )


def _score(candidate: Candidate, split: _Split, fit: Fit, spec: TrainingSpec) -> _Scored:
    estimator = _fit(candidate, split.train, fit, spec)
    predicted = positive_scores(estimator, split.matrix)
    acceptable = measure(spec.acceptable_error.metric, split.observed, predicted)
    score = WindowScore(
        fold=split.fold,
        metric=measure(spec.choose, split.observed, predicted),
        acceptable=acceptable,
        is_acceptable=spec.acceptable_error.is_met_by(acceptable),
        trained=len(split.train.target),
        tested=len(split.observed),
        positives=int(split.observed.sum()),
        unknown=split.unknown,
        unseen=split.unseen,
        noise=noise(spec.choose, split.observed, predicted, float(split.train.target.mean())),
    )
    return _Scored(score, split.time, split.observed, predicted)


def _training_rows(
    table: pa.Table, target: Outcomes, spec: TrainingSpec, window: Window
) -> tuple[TrainingRows, Signature]:
    if not len(target) or target.min() == target.max():
        raise InvalidError(
            f'Training window {window} of model "{spec.model}" has {len(target)} rows whose '
            f'"{spec.target}" was known in time, and not both outcomes: expected some of each. '
            "Widen the window, or check the data.",
            kind="one-outcome",
        )
    signature = learn_signature(table, spec.features)
    matrix, _ = signature.matrix_of(table)
    return TrainingRows(matrix, target, signature.names, signature.categorical), signature


def _fit(candidate: Candidate, train: TrainingRows, fit: Fit, spec: TrainingSpec) -> Estimator:
    if candidate.name == CONSTANT:
        return _constant(train)
    params = copy.deepcopy(dict(candidate.params))
    _check_callable(fit, train, params, spec)
    estimator = fit(train, params, spec.seed)
    classes = getattr(estimator, "classes_", None)
    if not hasattr(estimator, "predict_proba") or classes is None or list(classes) != [0, 1]:
        raise InvalidError(
            f'The fit function of model "{spec.model}" returned {type(estimator).__name__}: '
            "expected a fitted classifier with predict_proba and the classes 0 and 1. "
            "Return the estimator after its fit.",
            kind="not-an-estimator",
        )
    return estimator


def _check_callable(
    fit: Fit, train: TrainingRows, params: dict[str, Any], spec: TrainingSpec
) -> None:
    try:
        inspect.signature(fit).bind(train, params, spec.seed)
    except TypeError as error:
        raise InvalidError(
            f'The fit function of model "{spec.model}" cannot be called with train, params and '
            f"seed ({error}): expected def fit(train, params, seed). Correct its parameters.",
            kind="not-an-estimator",
        ) from None


def _constant(train: TrainingRows) -> Estimator:
    from sklearn.dummy import DummyClassifier

    constant: Estimator = DummyClassifier(strategy="prior").fit(train.features, train.target)
    return constant


def positive_scores(estimator: Estimator, matrix: Matrix) -> Scores:
    """Returns the probability of 1 for each row of `matrix`, which may have none."""
    if not len(matrix):
        return np.empty(0)
    return np.asarray(estimator.predict_proba(matrix)[:, 1], dtype=np.float64)


def _prepare(table: pa.Table, spec: TrainingSpec, within: Window) -> _Rows:
    """Returns the rows of the slice in the order of their time and key, checked."""
    needed = (*spec.key, spec.time, spec.target, spec.known_after.column, *spec.features)
    for name in needed:
        if name not in table.column_names:
            raise InvalidError(
                f'Column "{name}" is not in the table that model "{spec.model}" reads: expected '
                f"one of {', '.join(table.column_names)}. Correct the name.",
                kind="no-such-column",
                column=name,
            )
    time = instants_of(table, spec.time)
    inside = (time >= to_microseconds(within.start)) & (time < to_microseconds(within.end))
    table = table.select(list(dict.fromkeys(needed))).filter(pa.array(inside))
    order = dict.fromkeys((spec.time, *spec.key))
    table = table.sort_by([(name, "ascending") for name in order]).combine_chunks()
    target, has_target = outcomes_of(table, spec.target)
    rows = _Rows(
        table=table,
        time=instants_of(table, spec.time),
        known=instants_of(table, spec.known_after.column),
        target=target,
        has_target=has_target,
    )
    _check_keys(rows, tuple(order))
    _check_known(rows, spec)
    return rows


def outcomes_of(table: pa.Table, target: str) -> tuple[Outcomes, npt.NDArray[np.bool_]]:
    """Returns a column of outcomes as 0 and 1, 0 where it is not known, and whether it is known.

    Raises:
        InvalidError (kind "bad-target"): neither boolean nor 0 and 1.
    """
    column = table[target]
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
        values = _filled(column.cast(pa.int64()))
        if not np.any((values != 0) & (values != 1)):
            return values, _present(column)
    raise InvalidError(
        f'Target "{target}" has type {column.type}: expected a boolean, or 0 and 1. Derive one in '
        "the step before.",
        kind="bad-target",
    )


def _check_keys(rows: _Rows, key: tuple[str, ...]) -> None:
    distinct = rows.table.group_by(list(key)).aggregate([]).num_rows
    if distinct != rows.table.num_rows:
        raise InvalidError(
            f"{rows.table.num_rows - distinct} rows share their key ({', '.join(key)}) with "
            "another row: expected one row per key, or an event trains and tests twice. Correct "
            "the key or the step before.",
            kind="duplicate-key",
        )


def _check_known(rows: _Rows, spec: TrainingSpec) -> None:
    """Holds the declared `known_after` against the rows: it must be true of every one."""
    column = rows.table[spec.known_after.column]
    silent = rows.has_target & ~_present(column)
    if silent.any():
        raise InvalidError(
            f'{int(silent.sum())} rows have a "{spec.target}" but no '
            f'"{spec.known_after.column}": expected to know when each target was known. First: '
            f"{_row(rows, spec, int(silent.argmax()))}. Fill the column.",
            kind="unknown-outcome-time",
        )
    wait = np.where(rows.has_target, rows.known - rows.time, 0)
    soonest, latest = int(wait.argmin()), int(wait.argmax())
    if wait[soonest] < 0:
        raise InvalidError(
            f'"{spec.target}" is known before its event: {_row(rows, spec, soonest)}, known at '
            f"{format_instant(from_microseconds(int(rows.known[soonest])))}. "
            f'Expected it after. Correct "{spec.known_after.column}".',
            kind="known-too-early",
        )
    event = from_microseconds(int(rows.time[latest]))
    if rows.known[latest] > to_microseconds(spec.known_after.at_most.after(event)):
        raise InvalidError(
            f'"{spec.target}" may be known {wait[latest] / 3.6e9:.1f} hours after its event '
            f"({_row(rows, spec, latest)}): expected at most {spec.known_after.at_most}. Raise "
            "`known_after.at_most`, or correct the column.",
            kind="known-too-late",
        )


def _row(rows: _Rows, spec: TrainingSpec, index: int) -> str:
    names = dict.fromkeys((*spec.key, spec.time))
    values: Mapping[str, Any] = rows.table.select(list(names)).slice(index, 1).to_pylist()[0]
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _present(column: pa.ChunkedArray[Any]) -> npt.NDArray[np.bool_]:
    present: npt.NDArray[np.bool_] = column.is_valid().to_numpy()
    return present


def instants_of(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Returns a column of instants as microseconds since 1970; a missing one is 0.

    Raises:
        InvalidError (kind "bad-time-column").
    """
    column = table[name]
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise InvalidError(
            f'Column "{name}" has type {column.type}: expected instants. Cast it in the step '
            "before.",
            kind="bad-time-column",
            column=name,
        )
    zone = getattr(column.type, "tz", None)
    micros = column.cast(pa.timestamp("us", zone)).cast(pa.int64())
    return _filled(micros)


def _filled(column: pa.ChunkedArray[Any]) -> npt.NDArray[np.int64]:
    zero: Any = 0  # the stubs know no plain value here
    values: npt.NDArray[np.int64] = column.fill_null(zero).to_numpy()
    return values
