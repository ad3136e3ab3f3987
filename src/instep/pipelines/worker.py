"""The process in which the steps of a run execute. It dies with the process that started it.

Started as `python -m instep.pipelines.worker`, in a folder that holds the captured code and
nothing else of the project. It reads requests from standard input and answers on a descriptor of
its own; what steps print goes to the log. It knows no catalog, and publishes nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from instep.canonical import from_microseconds
from instep.errors import InstepError, InternalError, InvalidError, disk_error
from instep.pipelines import compute, messages
from instep.pipelines.closed import closed_to_the_rest

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that this process gets when its parent ends."""


def main() -> None:
    """Answers requests until standard input ends."""
    _die_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    project = Path(sys.argv[2])
    code = Path.cwd()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _answer(answers, {"result": _perform(request, code, project, answers)})
        except InstepError as error:
            _answer(answers, {"error": messages.error_json(error)})
        except (Exception, SystemExit) as error:  # whatever a step raises is told to the parent
            found = _translated(error, request.get("step", ""), code, project)
            _answer(answers, {"error": messages.error_json(found)})


def _perform(request: messages.Message, code: Path, project: Path, answers: TextIO) -> Any:
    def progress(text: str) -> None:
        _answer(answers, {"progress": text})

    match request["act"]:
        case "describe":
            return messages.schema_json(compute.describe_sql(_table_work(request)))
        case "table":
            schema = messages.parse_schema(request["schema"])
            layout = messages.parse_layout(request["layout"])
            written = compute.compute_table(_table_work(request), schema, progress, layout)
            return {
                "pieces": [[messages.written_json(file) for file in piece] for piece in written],
                "memory_bytes": _peak_memory_bytes(),
            }
        case "train":
            work = _train_work(request, code)
            with closed_to_the_rest(project, code, Path(request["staging"]), work.scratch):
                bundle = compute.train_model(work, progress)
            return {
                "names": list(bundle.names),
                "digest": bundle.digest,
                "card": bundle.card,
                "memory_bytes": _peak_memory_bytes(),
            }
        case act:
            raise InternalError(
                f'A worker was asked to "{act}": expected describe, table or train. Report this '
                "as a fault of Instep.",
                kind="unknown-act",
            )


def _table_work(request: messages.Message) -> compute.TableWork:
    return compute.TableWork(
        sql=request["sql"],
        pieces=tuple(
            tuple(messages.parse_file_set(one) for one in piece) for piece in request["pieces"]
        ),
        labels=tuple(request["labels"]),
        writes=tuple(messages.parse_slice(one) for one in request["writes"]),
        folder=Path(request["folder"]),
        scratch=Path(request["scratch"]),
    )


def _train_work(request: messages.Message, code: Path) -> compute.TrainWork:
    from instep.pipelines.config import TrainStep, parse_pipeline

    config = parse_pipeline(request["config"], request["path"])
    step = next(one for one in config.steps if one.name == request["step"])
    assert isinstance(step, TrainStep), "only a training step is trained"
    made_at: datetime = from_microseconds(request["made_at"])
    return compute.TrainWork(
        step=step,
        table=messages.parse_file_set(request["table"]),
        window=messages.parse_window(request["window"]),
        folder=Path(request["folder"]),
        scratch=Path(request["scratch"]),
        code=code,
        made_at=made_at,
        run=request["run"],
    )


def _translated(error: Exception | SystemExit, step: str, code: Path, project: Path) -> InstepError:
    missing = _uncaptured(error, step, project)
    if missing is not None:
        return missing
    frames = [
        f"  {Path(frame.filename).relative_to(code)}:{frame.lineno} in {frame.name}"
        + (f": {frame.line}" if frame.line else "")
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(code)
    ]
    if isinstance(error, SystemExit):
        return InvalidError(
            f'Step "{step}" ended its process with sys.exit({_shown(error.code)})\n'
            + "\n".join(frames)
            + "\nExpected a result. Return one, or raise an error that says what is wrong; nothing "
            "was published.",
            kind="step-exited",
            step=step,
            frames=tuple(frame.strip() for frame in frames),
        )
    what = "".join(traceback.format_exception_only(error)).strip()
    if frames or isinstance(error, SyntaxError):
        return InvalidError(
            f'Step "{step}" raised {what}\n' + "\n".join(frames) + "\n"
            "Expected a result. Correct the step; nothing was published.",
            kind="step-raised",
            step=step,
            error=type(error).__name__,
            frames=tuple(frame.strip() for frame in frames),
        )
    failed = disk_error(error) if isinstance(error, OSError) else None
    return failed or InternalError(
        f'Step "{step}" failed inside Instep with {what} ({_last_frame(error.__traceback__)}): '
        "expected a result or a named error. Report this as a fault of Instep.",
        kind="worker-failed",
        step=step,
        traceback="".join(traceback.format_exception(error)),
    )


def _shown(code: object) -> str:
    return "" if code is None else repr(code)


def _uncaptured(error: Exception | SystemExit, step: str, project: Path) -> InvalidError | None:
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    stem = error.name.replace(".", "/")
    for candidate in (f"{stem}.py", f"{stem}/__init__.py", f"steps/{stem}.py"):
        if (project / candidate).is_file():
            return InvalidError(
                f'Step "{step}" imports "{error.name}", which is {candidate} in the project but '
                "was not captured: expected an import statement from the project's folder. Write "
                f'"import {candidate.removesuffix(".py").replace("/", ".")}" in the step.',
                kind="uncaptured-import",
                step=step,
                path=candidate,
            )
    return None


def _last_frame(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no frame"


def _answer(answers: TextIO, message: messages.Message) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _peak_memory_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage also counts what the parent held when it started this process
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
