"""Detectron2's `utils.logger`: the log of a script."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from ...atomic import storage_errors
from ..absent import absent

__all__ = ["setup_logger"]

__getattr__ = absent(__name__, __all__)

_FORMAT = logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
_PACKAGE = "sn2fpn"


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Show the log on the console of the main process and, if wanted, write it to a file. A second call adds nothing.

    Args:
        output: a file whose name ends with .txt or .log, or a folder for `log.txt`; None writes no file.
        distributed_rank: the rank of this process. Others than the main process add it to the name of the file.
        color: has no effect, because the log has no colours.
        name: the log; Detectron2's and fvcore's stand for that of this package.
        abbrev_name: has no effect, because lines do not name the log.
        enable_propagation: whether lines also go to the handlers of the root log.
        configure_stdout: whether the log is shown on the console.

    Returns:
        The log.

    Raises:
        UserError: the file cannot be written.
    """
    log = logging.getLogger(_PACKAGE if name.split(".")[0] in ("detectron2", "fvcore") else name)
    log.setLevel(logging.INFO)
    log.propagate = enable_propagation
    console = configure_stdout and distributed_rank == 0
    if console and not any(type(h) is logging.StreamHandler for h in log.handlers):
        _add(log, logging.StreamHandler(sys.stdout))
    if output is not None:
        path = Path(output) if output.endswith((".txt", ".log")) else Path(output) / "log.txt"
        path = path.with_name(f"{path.name}.rank{distributed_rank}") if distributed_rank else path
        if not any(getattr(h, "baseFilename", "") == str(path.absolute()) for h in log.handlers):
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _add(log, logging.FileHandler(path, encoding="utf-8"))
    return log


def _add(log: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(_FORMAT)
    log.addHandler(handler)
