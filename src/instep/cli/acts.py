"""What the demonstration does: acts of commands, each with the sentence that says why it matters.

Nothing runs here. A line may name values in braces that earlier output has shown: a change number,
a run id, a receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

CHANGE = r'change"?:? ?(\d+)'
RUN = r"(run_[0-9a-f-]{36})"
RECEIPT = r"(rcp_[0-9a-f-]{36})"
NOW = ""
"""Learns the instant at which the command ended, instead of something in its output."""

AS_IN_THE_EXAMPLE = ("2013-01-01", "2013-09-01")
"""The bounds of the slice in the example's pipeline."""

REFUSED = 5
"""The exit code of RefusedError: the command was understood, and a gate said no."""


@dataclass(frozen=True, slots=True)
class Run:
    """A command line that ends with exit code `exits`; `learns` maps a value's name to the regular
    expression whose group is that value in the output."""

    line: str
    why: str = ""
    exits: int = 0
    learns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Start:
    """A command line that keeps running; it is ready when `url` answers."""

    line: str
    url: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends what was started, with SIGTERM."""

    why: str = ""


Step = Run | Start | Stop


@dataclass(frozen=True, slots=True)
class Act:
    """One act of the walk."""

    number: int
    title: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """What the walk is about: which months, what upstream changes, how many flights.

    Months are "2013-01"; `trained` are those of the first model, in order; the flights of
    `next_month` arrive with a column `renamed` (before, after), one of the tables of `last_month`
    with a column `multiplied` (table, column, factor).
    """

    trained: tuple[str, ...] = tuple(f"2013-{month:02}" for month in range(1, 9))
    next_month: str = "2013-09"
    last_month: str = "2013-10"
    renamed: tuple[str, str] = ("arr_delay", "arrival_delay")
    multiplied: tuple[str, str, float] = ("flights", "distance", 1.609344)
    unseen: str = "ILM"
    one_in: int = 1
    port: int = 8731


def acts(story: Story) -> tuple[Act, ...]:
    """Returns the eleven acts, in order."""
    titles = (
        ("The project's own files are reviewed, then data arrives", _arrive),
        ("An idea runs on a branch", _run),
        ("The change is proposed with evidence, and a second person agrees", _propose),
        ("A release moves production", _release),
        ("Production answers, and says on what grounds", _serve),
        ("Upstream renames a column", _rename),
        ("Upstream changes a unit", _unit),
        ("What changed since the model was made", _watch),
        ("A second model goes live, and the first comes back", _roll_back),
        ("A prediction is explained", _explain),
        ("An old run is run again", _reproduce),
    )
    return tuple(
        Act(number, title, tuple(steps(story)))
        for number, (title, steps) in enumerate(titles, start=1)
    )


def _arrive(story: Story) -> Iterator[Step]:
    first, last = story.trained[0], story.trained[-1]
    few = f" --one-in {story.one_in}" if story.one_in > 1 else ""
    rename = f"--rename {'='.join(story.renamed)}"
    table, column, factor = story.multiplied
    multiply = f" --multiply {column}={factor}"
    flights, weather = (multiply, "") if table == "flights" else ("", multiply)
    yield Run(
        f"python cut.py data --months {first}..{last}{few}",
        "The real flights of New York in 2013, as an upstream would send them: a file a month.",
    )
    yield Run(
        f"python cut.py data --tables flights --months {story.next_month} {rename}{few}",
        "This file is not as it was: the demonstration renamed a column in it, for act 6.",
    )
    yield Run(f"python cut.py data --tables weather --months {story.next_month}")
    yield Run(
        f"python cut.py data --tables flights --months {story.last_month} {rename}{flights}{few}",
    )
    yield Run(
        f"python cut.py data --tables weather --months {story.last_month}{weather}",
        "And in the last month the unit of a column is changed as well, for act 7.",
    )
    yield Run("instep init --as ana", "A lake: a catalog and a folder of open files. No server.")
    for bound, instant in (("from", f"{first}-01"), ("to", f"{story.next_month}-01")):
        if instant not in AS_IN_THE_EXAMPLE:
            yield Run(f"instep config set delay slice.{bound} {instant}")
    yield Run(
        "instep propose --as ana",
        "Files on disk are drafts. Contracts, pipeline and configuration count once reviewed.",
        learns={"project": CHANGE},
    )
    yield Run("instep approve {project} --as ben", "A second person agrees.")
    yield Run("instep merge {project} --as ana", "From here on, data is held to its contracts.")
    yield Run(
        "instep ingest data/planes.csv data/airports.csv data/airlines.csv --as ana",
        "An arrival is a change of its own kind: checked, then merged if it fits.",
    )
    for month in story.trained:
        why = ""
        if month == first:
            why = "Each file is profiled, and compared with the one before it."
        if month == "2013-02":
            why = "One row claims a wind of 1048 mph: set aside with its reason, not lost."
        yield Run(f"instep ingest data/flights-{month}.csv data/weather-{month}.csv --as ana", why)
    yield Run("instep status", "Where one is, at any moment, and what to do next.")


def _run(story: Story) -> Iterator[Step]:
    yield Run("instep plan delay", "What a run would read, write and take, before it starts.")
    yield Run(
        "instep run delay --branch try-delay --as ana",
        "One commit or nothing. The dullest model that is good enough in every window wins.",
        learns={"run": RUN},
    )
    yield Run("instep diff main try-delay", "Keys, schema and rows: the whole difference.")
    yield Run("instep log try-delay", "Who did what, and which commit it made.")


def _propose(story: Story) -> Iterator[Step]:
    yield Run(
        "instep propose try-delay --as ana",
        "Evidence is computed, not typed.",
        learns={"first": CHANGE},
    )
    yield Run("instep approve {first} --as ana", "Nobody approves their own change.", exits=REFUSED)
    yield Run("instep approve {first} --as ben", "Ben read the evidence, and agrees to exactly it.")
    yield Run("instep merge {first} --as ana", "Data, pipeline and model reach main in one commit.")


def _release(story: Story) -> Iterator[Step]:
    yield Run(
        "instep release prod --as ben", "Consumers see production, and only a release moves it."
    )
    yield Run("instep where", "Which model on which data is live, since when, by whom.")


def _serve(story: Story) -> Iterator[Step]:
    url = f"http://127.0.0.1:{story.port}"
    yield Start(
        f"instep serve prod --port {story.port}",
        f"{url}/health",
        "It reads the model from the lake, never from disk.",
    )
    yield Run(
        f"python send.py data {story.next_month} --url {url} --unseen {story.unseen}",
        "Every answer carries a receipt. What the model cannot know is refused, with the reason.",
        learns={"receipt": RECEIPT},
    )
    yield Stop("Every receipt was durable before its answer left.")


def _rename(story: Story) -> Iterator[Step]:
    month = story.next_month
    yield Run(
        f"instep ingest data/flights-{month}.csv --as ana",
        "Held, with the evidence that it is a rename. Nothing downstream broke at night.",
        exits=REFUSED,
        learns={"renamed": CHANGE},
    )
    yield Run(
        "instep accept {renamed} --rename --as ben",
        "The mapping stays with the source; the column keeps its name and its id.",
    )
    yield Run(f"instep ingest data/weather-{month}.csv --as ana")
    yield Run(
        f"instep config set delay slice.to {story.last_month}-01",
        "One month more to train on: a reviewed value in a file, not a flag.",
    )
    yield Run(
        "instep run delay --branch with-next-month --as ana",
        "The renamed month runs as if nothing had happened.",
    )


def _unit(story: Story) -> Iterator[Step]:
    yield Run(
        f"instep ingest data/{story.multiplied[0]}-{story.last_month}.csv --as ana",
        "Every value is within its terms. Only the comparison with the month before shows it.",
        exits=REFUSED,
        learns={"unit": CHANGE},
    )
    yield Run(
        "instep refuse {unit} --why 'Another unit; upstream will send it again.' --as ben",
        "Turned away, with a reason that stays.",
    )


def _watch(story: Story) -> Iterator[Step]:
    yield Run(
        "instep watch prod",
        "Sentences, not a dashboard: what changed, since when, how sure, what one can decide.",
    )


def _roll_back(story: Story) -> Iterator[Step]:
    yield Run(
        "instep propose with-next-month --as ana",
        "The run of act 6, with its evidence.",
        learns={"second": CHANGE},
    )
    yield Run("instep approve {second} --as ben")
    yield Run("instep merge {second} --as ana")
    yield Run("instep release prod --as ben", "The second model is live.")
    yield Run(
        "instep where",
        "Remember this moment.",
        learns={"second_live_at": NOW},
    )
    yield Run(
        "instep rollback prod --only model/delay --why 'Too many calls this morning.' --as ben",
        "One step back, for the model alone; the data stays.",
    )
    yield Run("instep where", "The first model is back.")
    yield Run("instep where --at {second_live_at}", "What was live then is still known.")


def _explain(story: Story) -> Iterator[Step]:
    yield Run(
        "instep explain {receipt}",
        "From one answer back to inputs, model, run, data, contracts, code, and who agreed.",
    )


def _reproduce(story: Story) -> Iterator[Step]:
    yield Run("instep reproduce {run}", "The same commit, configuration, code and seed, once more.")
    yield Run("instep status", "And where one is now.")
