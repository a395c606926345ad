"""Programs that run one after the other, each with a time limit, and the page that says what has become of them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tabulate import tabulate

from sn2fpn.atomic import atomic_write
from sn2fpn.errors import UserError

__all__ = ["Outcome", "Step", "last_line", "run_steps"]

ROOT = Path(__file__).resolve().parents[1]
_ELSEWHERE = "name another folder with --output-dir, or remove that report"


@dataclass(frozen=True)
class Step:
    """A program that is run for the report.

    Attributes:
        name: its name in the report.
        command: what follows the name of the Python interpreter.
        limit_s: the seconds after which it is ended.
        read: returns a summary of one line and a text in Markdown from what the program has printed. It raises a
            UserError if the result is not good enough.
        environment: additional environment variables.
    """

    name: str
    command: Sequence[str]
    limit_s: int
    read: Callable[[str], tuple[str, str]]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What has become of a step."""

    name: str
    command: str
    ok: bool
    seconds: float
    summary: str
    details: str = ""


def run_steps(
    steps: Sequence[Step], title: str, notes: str, about: dict[str, str], out: Path, *, keep: bool = False
) -> int:
    """Run steps one after the other, write the report after each of them, and return 0, or 1 if one has failed.

    Args:
        steps: the steps.
        title: the title of the report.
        notes: what a reader of the tables must know.
        about: what the results depend on, such as versions.
        out: the folder of the report.
        keep: whether the report keeps what an earlier one in the folder says of other steps.

    Raises:
        UserError: the earlier report that would be kept is about something else, such as another machine or commit.
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes = _earlier(out / "report.json", about) if keep else {}
    for step in steps:
        print(f"{step.name}: at most {step.limit_s} s", flush=True)
        outcomes[step.name] = outcome = run_step(step, out)
        print(f"  {'ok' if outcome.ok else 'FAILED'}, {outcome.seconds:.0f} s: {outcome.summary}")
        write_report(title, notes, about, list(outcomes.values()), out)
    print(f"The report is {out / 'report.md'}")
    return 0 if all(outcomes[step.name].ok for step in steps) else 1


def _earlier(file: Path, about: dict[str, str]) -> dict[str, Outcome]:
    """Return the outcomes of an earlier report by their steps' names, {} without one."""
    if not file.is_file():
        return {}
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        found, outcomes = report["about"], {step["name"]: Outcome(**step) for step in report["steps"]}
    except (OSError, ValueError, KeyError, TypeError) as e:
        problem = f"{type(e).__name__}: {e}"
        raise UserError(f"{file}: this is no report that could be added to ({problem}); {_ELSEWHERE}") from None
    for key in {**found, **about}:
        if found.get(key) != about.get(key):
            raise UserError(
                f"{file}: this report is of {key} {found.get(key)!r}, and the new steps are of {about.get(key)!r}; "
                f"{_ELSEWHERE}"
            )
    return outcomes


def run_step(step: Step, out: Path) -> Outcome:
    """Run a step to its end or its time limit, and keep what it prints in `<out>/<name>.log`."""
    command, started = [sys.executable, *step.command], time.perf_counter()
    code, said = _run(command, step)
    (out / f"{step.name.replace(', ', '_').replace(' ', '_')}.log").write_text(said, encoding="utf-8")
    ok, details = code == 0, ""
    if ok:
        try:
            summary, details = step.read(said)
        except UserError as e:
            ok, summary = False, str(e)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
            ok, summary = False, f"its result cannot be read: {type(e).__name__}: {e}"
    else:
        why = f"it was ended after {step.limit_s} s" if code is None else f"exit code {code}"
        summary, details = f"{why}: {last_line(said)}", "\n".join(f"    {line}" for line in said.splitlines()[-15:])
    seconds = time.perf_counter() - started
    shown = shlex.join(["python", *step.command]).replace(f"{ROOT}/", "")
    return Outcome(step.name, shown, ok, round(seconds, 1), summary, details)


def _run(command: list[str], step: Step) -> tuple[int | None, str]:
    """Return the exit code of a program, or None if it took too long, and what it has printed."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | step.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that its own processes can be ended with it
    )
    try:
        said, _ = process.communicate(timeout=step.limit_s)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None, process.communicate()[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def last_line(said: str) -> str:
    """Return the last line of what a program has printed that is not empty."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it has printed nothing"


def write_report(title: str, notes: str, about: dict[str, str], outcomes: Sequence[Outcome], out: Path) -> None:
    """Write `report.md` and `report.json`."""
    table = [[o.name, "ok" if o.ok else "**failed**", f"{o.seconds:.0f} s", o.summary] for o in outcomes]
    parts = [
        f"# {title}",
        tabulate(about.items(), ("", ""), tablefmt="github", disable_numparse=True),
        "## Steps",
        tabulate(table, ("step", "", "time", "result"), tablefmt="github", disable_numparse=True),
        notes,
    ]
    for outcome in outcomes:
        parts += [f"## {outcome.name}", f"`{outcome.command}`", *([outcome.details] if outcome.details else [])]
    with atomic_write(out / "report.md") as stream:
        stream.write("\n\n".join(parts) + "\n")
    with atomic_write(out / "report.json") as stream:
        json.dump({"about": about, "steps": [asdict(o) for o in outcomes]}, stream, indent=1)
