"""What happens before a run: its output folder, its log and its environment."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from .. import distributed as comm
from ..atomic import atomic_write, storage_errors
from ..errors import argument_names
from .folder import make_output_dir
from .options import RunOptions
from .versions import environment_summary

__all__ = ["default_setup"]

logger = logging.getLogger(__name__)


def default_setup(
    options: RunOptions, config_text: str, args: Any, engine: Any = "", notes: Iterable[str] = ()
) -> None:
    """Open the log, write the environment to it, and write `config.yaml` to the output folder.

    Args:
        options: the options of the run.
        config_text: the configuration as YAML.
        args: the command line, from `default_argument_parser`.
        engine: the first line of the log, which names the engine.
        notes: what else the user should know, from `run_folder`.

    Raises:
        UserError: the output folder cannot be created or written.
    """
    with argument_names({"output_dir": options.key("output_dir")}):
        out = make_output_dir(options.output_dir)
    _setup_logger(out)
    if engine:
        logger.info("%s", engine)
    for note in notes:
        logger.warning("%s", note)
    logger.info("Environment:\n%s", environment_summary())
    logger.info("Command line: %s", " ".join(sys.argv))
    torch.backends.cudnn.benchmark = options.cudnn_benchmark and not args.eval_only
    _set_float32_precision(options.float32_precision)
    if comm.is_main_process():
        path = out / "config.yaml"
        if args.eval_only and path.exists():  # that of the training
            path = out / "inference" / path.name
        with atomic_write(path) as f:
            f.write(config_text)
        logger.info("The full configuration was written to %s", path)


def _set_float32_precision(precision: str) -> None:
    """Set how exactly GPUs multiply and convolve float32 numbers, as Detectron2 does; "" leaves it as it is."""
    if precision and torch.cuda.is_available():
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"


def _setup_logger(out: Path) -> None:
    """Log to a file in every process, and to the console in the main process."""
    root = logging.getLogger("sn2fpn")
    root.setLevel(logging.INFO)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    rank = comm.get_rank()
    file_name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    with storage_errors(out / file_name):
        handlers: list[logging.Handler] = [_LogFile(out / file_name, encoding="utf-8")]
    if rank == 0:
        handlers.append(_StdoutHandler())
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%m/%d %H:%M:%S"))
        root.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A log file that a full disk ends with one line on the console; the run itself goes on or says more."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        print(f"error: {self.baseFilename} ends here: {error.strerror}", file=sys.stderr)
        self.setLevel(logging.CRITICAL + 1)


class _StdoutHandler(logging.StreamHandler):
    """A handler that writes to the present `sys.stdout`, which a live progress bar replaces while it runs."""

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, _: Any) -> None:
        pass
