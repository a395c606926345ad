"""Train and evaluate one cell: what happens inside a job, wherever it runs."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from ..atomic import atomic_write
from ..engine import environment, import_files, main
from ..errors import UserError
from .file import Cell, Study, cell_folder
from .locks import is_locked, locked
from .records import collect_result

__all__ = ["CellJob", "command_line", "lock_file", "run_cell"]

logger = logging.getLogger(__name__)
_INTERRUPTED = 130
_NOTICE_S = 60  # after SIGTERM, Slurm's pre-emption may follow with SIGUSR2 within this time
_POLL_S = 1.0


def lock_file(folder: Path) -> Path:
    """Held while the cell of that folder is trained."""
    return folder / ".lock"


def command_line(study: Study, cell: Cell, folder: Path, num_gpus: int = 1) -> list[str]:
    """The arguments for train_net.py that train a cell, from its last checkpoint where it has one."""
    flags = ["--engine", study.engine, "--num-gpus", str(num_gpus), "--resume"]
    flags += [part for file in study.imports for part in ("--import", str(file))]
    keys = study.overrides(cell.variant, cell.seed) | {"OUTPUT_DIR": str(cell_folder(folder, cell))}
    pairs = [text for key, value in keys.items() for text in (key, str(value))]
    return [*flags, "--config-file", str(study.base), *pairs]


def run_cell(study: Study, cell: Cell, folder: Path, num_gpus: int = 1) -> str:
    """Train and evaluate a cell in this process, unless it is finished; waits while another process trains it.

    Returns:
        "finished" | "failed" (why is in `failure.txt`) | "interrupted" (a checkpoint has been saved).
    """
    out = cell_folder(folder, cell)
    try:
        with locked(lock_file(out)):
            if not (out / "result.json").is_file():
                _train(study, cell, folder, num_gpus)
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as e:
        failure = str(e) if isinstance(e, UserError) else traceback.format_exc()
        logger.error("%s", failure)
        write_failure(out, failure)
        return "failed"
    return "finished"


def write_failure(out: Path, text: str) -> None:
    """Say in the cell's folder why its last try failed."""
    with atomic_write(out / "failure.txt") as f:
        f.write(text.rstrip() + "\n")


def _train(study: Study, cell: Cell, folder: Path, num_gpus: int) -> None:
    out = cell_folder(folder, cell)
    import_files(study.imports, f"{study.path}: IMPORTS:")
    arguments = command_line(study, cell, folder, num_gpus)
    _write_identity(study, cell, out, arguments)
    try:
        code = main(["--debug", *arguments])  # user mistakes come as exceptions
    except SystemExit as e:  # a spawned process failed; it has logged why
        code = e.code
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise UserError(_last_error(out / "log.txt") or f"training ended with exit code {code}; see {out / 'log.txt'}")
    result = collect_result(study, cell, out)
    (out / "failure.txt").unlink(missing_ok=True)
    with atomic_write(out / "result.json") as f:
        json.dump(result, f, indent=2)


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.split("ERROR: ", 1)[1] for line in reversed(lines) if "ERROR: " in line), "")


def _write_identity(study: Study, cell: Cell, out: Path, arguments: list[str]) -> None:
    """`cell.json`: what is needed to train the cell again, and what it starts from."""
    path = out / "cell.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = environment()
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    identity = {
        "variant": cell.variant.name,
        "axes": cell.variant.axes,
        "seed": cell.seed,
        "overrides": study.overrides(cell.variant, cell.seed),
        "command": ["python", "train_net.py", *arguments],
        "commit": found.pop("commit"),
        "versions": found,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": before.get("started", now),
        "tries": [*before.get("tries", []), now],
    }
    for key in ("commit", "versions"):
        if before and before[key] != identity[key]:
            logger.warning(
                "%s: %s was %s when the cell was started, is now %s", cell.name, key, before[key], identity[key]
            )
    with atomic_write(path) as f:  # first without the fingerprint, which takes a while: who runs it is known at once
        json.dump(identity | {"fingerprint": before.get("fingerprint", {})}, f, indent=2)
    if not before.get("fingerprint"):
        from .fingerprint import fingerprint

        identity["fingerprint"] = fingerprint(study.config(cell.variant, cell.seed))
        with atomic_write(path) as f:
            json.dump(identity, f, indent=2)


@dataclass
class CellJob:
    """A cell as a submitit job: `CellJob(…)()` runs it; `checkpoint` is what submitit queues again.

    Pre-emption, time limits (SIGUSR2) and being told to stop (SIGTERM) all end in the trainer saving a checkpoint,
    from which the next run of the job goes on.

    Attributes:
        study_file: the `study.yaml` in the study's folder.
        index: of the cell in `Study.cells`.
        runner: a file that the runner has locked; when it no longer has (because it was told to stop, or was
            killed), the job saves and stops, too. None: the job lives on without its runner.
    """

    study_file: Path
    index: int
    folder: Path
    num_gpus: int = 1
    runner: Path | None = None

    def __call__(self) -> str:
        study = Study.load(self.study_file)
        cell = study.cells[self.index]
        print(shlex.join(["python", "train_net.py", *command_line(study, cell, self.folder, self.num_gpus)]))
        if self.runner is not None:
            os.setpgid(0, 0)  # the terminal's Ctrl-C reaches the runner alone, which then tells its jobs once
            threading.Thread(target=_stop_without, args=(self.runner,), daemon=True).start()
        with _signals() as notice:
            state = run_cell(study, cell, self.folder, self.num_gpus)
            if state == "interrupted":
                notice.requeue_if_preempted(waiting=self.runner is None)
        return state

    def checkpoint(self) -> Any:
        """The job to queue again: the same, since a cell resumes by itself."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _stop_without(runner: Path) -> None:
    """Tell this process, once, to save and stop when nobody holds the runner's lock any more."""
    while is_locked(runner):
        time.sleep(_POLL_S)
    print("the runner has ended: saving and stopping", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


class _Notice:
    """What a job was told by signals."""

    def __init__(self, requeue: Any) -> None:
        self._requeue = requeue  # submitit's handler: checkpoint(), queue again, exit
        self._preempted: tuple[int, FrameType | None] | None = None

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM outside of training (the trainer has its own way): end now; training processes save and end."""
        for child in multiprocessing.active_children():
            child.terminate()
        raise KeyboardInterrupt

    def preempt(self, number: int, frame: FrameType | None) -> None:
        """SIGUSR2: save and stop as for SIGTERM, then queue again."""
        self._preempted = (number, frame)
        os.kill(os.getpid(), signal.SIGTERM)

    def requeue_if_preempted(self, waiting: bool) -> None:
        """Queue the job again when that was asked for; Slurm may first send SIGTERM, so wait for what follows."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + _NOTICE_S * waiting
        while not self._preempted and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if self._preempted and callable(self._requeue):
            self._requeue(*self._preempted)


@contextmanager
def _signals() -> Iterator[_Notice]:
    """The job's own handlers for SIGTERM and SIGUSR2 in place of submitit's."""
    notice = _Notice(signal.getsignal(signal.SIGUSR2))
    previous = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, notice.stop),
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, notice.preempt),
    }
    try:
        yield notice
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
