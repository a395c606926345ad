"""The training program: it parses the arguments, chooses the engine and launches the processes of the run."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from ..atomic import storage_errors
from ..command_line import CommandLineParser
from ..errors import UserError, did_you_mean
from ..imports import import_files
from ..program import import_quickly, run_program
from ..shipped import shipped_files
from .arguments import default_argument_parser, evaluation_argument_parser
from .choice import Engine, choose_engine

__all__ = ["evaluation_main", "main", "prepare"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line of train_net.py and return its exit code.

    Args:
        argv: the arguments; None takes those of the process.

    Returns:
        0 at the end of the run, 2 after a user mistake or when a process of the run has died, 128 + N after signal N.
    """
    return _main(default_argument_parser(), argv)


def evaluation_main(argv: list[str] | None = None) -> int:
    """Run the command line of `sn2fpn eval` as `main` does that of train_net.py."""
    return _main(evaluation_argument_parser(), argv)


def _main(parser: CommandLineParser, argv: list[str] | None) -> int:
    args = parser.parse_args(argv)
    args.resume |= _was_restarted() and not args.eval_only
    return run_program(partial(_launch, args), debug=args.debug)


def _was_restarted() -> bool:
    """Return whether torchrun has started this program again (`--max-restarts`) because a process had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def _launch(args: Any) -> None:
    from .processes import launch

    engine, cfg = prepare(args)  # finds mistakes before any process starts
    launch(
        _run,
        args.num_gpus,
        args.num_machines,
        args.machine_rank,
        args.dist_url,
        args=(engine, cfg, args),
        device=_module(engine).device(cfg),
        debug=args.debug,
    )


def prepare(args: Any) -> tuple[Engine, Any]:
    """Return the engine and the configuration of a command line; the files of `--import` are imported.

    Args:
        args: the command line, from `default_argument_parser`.

    Raises:
        UserError: a mistake in the flags or in the configuration.
    """
    _check_flags(args)
    import_files(args.imports)
    engine = choose_engine(args.engine, args.config_file)
    return engine, _module(engine).load_config(args)


def _run(engine: Engine, cfg: Any, args: Any) -> None:
    from .. import distributed as comm  # which imports torch

    import_files(args.imports)  # this may be a spawned process
    args.resume = any(comm.all_gather(args.resume))  # under torchrun, each machine counts its own restarts
    with storage_errors():
        _module(engine).run(cfg, args, engine)


def _module(engine: Engine) -> Any:
    """Return the module of an engine, which has `load_config(args)`, `device(cfg)` and `run(cfg, args, engine)`."""
    return import_quickly(f".{engine.name}", __package__)


def _check_flags(args: Any) -> None:
    first = args.opts[0] if args.opts else ""
    if not args.config_file and first and "=" not in first and not first.partition(".")[0].isupper():
        near = did_you_mean(first, shipped_files("configs"))
        raise UserError(f"{first}: expected a configuration, whose name ends in .yaml, .yml or .py{near}")
    if not args.config_file:
        raise UserError("--config-file is missing; for example --config-file configs/faster_rcnn_R50_sni.yaml")
    if args.num_gpus < 1:
        raise UserError(
            f"--num-gpus: expected at least 1, found {args.num_gpus} (with MODEL.DEVICE cpu, processes are counted)"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank: expected 0 to {args.num_machines - 1} for --num-machines {args.num_machines}, "
            f"found {args.machine_rank}"
        )
    if args.dist_url != "auto" and "://" not in args.dist_url:
        raise UserError(f"--dist-url: expected tcp://HOST:PORT, found {args.dist_url!r}")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--dist-url: several machines need a common address, for example --dist-url tcp://HOST:29500")
