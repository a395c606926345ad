"""Before a run: the configuration, the log, the environment and the seed."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from .. import __version__
from .. import distributed as comm
from ..atomic import atomic_write
from ..config import CfgNode, get_cfg
from ..errors import UserError
from .options import YAML_KEYS, RunOptions, check_options, read_options
from .solver import check_steps

__all__ = [
    "default_setup",
    "environment",
    "environment_summary",
    "load_config",
    "make_output_dir",
    "scale_to_world_size",
    "seed_everything",
    "validate",
]

logger = logging.getLogger(__name__)


def load_config(args: Any) -> CfgNode:
    """The configuration of a command line: defaults <- file (and its bases) <- KEY VALUE pairs.

    Raises:
        UserError: an unknown key, a wrong type or an impossible combination.
    """
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    validate(cfg, args)
    return cfg


def validate(cfg: CfgNode, args: Any) -> None:
    """Catch what would otherwise fail hours later, in either engine.

    Raises:
        UserError: an impossible combination of keys and flags.
    """
    options = read_options(cfg, YAML_KEYS)
    check_options(options, args, has_train=bool(cfg.DATASETS.TRAIN), has_test=bool(cfg.DATASETS.TEST))
    check_steps(cfg.SOLVER.STEPS)
    for key, value in (
        ("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH),
        ("MODEL.FPN.OUT_CHANNELS", cfg.MODEL.FPN.OUT_CHANNELS),
    ):
        if value < 1:
            raise UserError(f"{key}: expected at least 1, found {value}")
    if cfg.SOLVER.BASE_LR <= 0:
        raise UserError(f"SOLVER.BASE_LR: expected a positive number, found {cfg.SOLVER.BASE_LR}")


def make_output_dir(path: str, key: str = "OUTPUT_DIR") -> Path:
    """The output folder, which exists when this returns; `key` names it in messages.

    Raises:
        UserError: it cannot be created.
    """
    out = Path(path)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"{key} {out}: cannot be created: {e}") from e
    return out


def default_setup(options: RunOptions, config_text: str, args: Any, engine: Any = "") -> None:
    """Open the log, print the environment and write `config.yaml` to the output folder.

    Args:
        config_text: the configuration as YAML.
        engine: the log's first line: the engine and why it is this one.

    Raises:
        UserError: the output folder cannot be created.
    """
    out = make_output_dir(options.output_dir, options.key("output_dir"))
    _setup_logger(out)
    if engine:
        logger.info("%s", engine)
    logger.info("Environment:\n%s", environment_summary())
    logger.info("Command line: %s", " ".join(sys.argv))
    torch.backends.cudnn.benchmark = options.cudnn_benchmark and not args.eval_only
    if options.float32_precision:
        torch.set_float32_matmul_precision(options.float32_precision)
    if comm.is_main_process():
        path = out / "config.yaml"
        with atomic_write(path) as f:
            f.write(config_text)
        logger.info("Full configuration written to %s", path)


def _setup_logger(out: Path) -> None:
    """Console for the main process, a file for every process."""
    root = logging.getLogger("sn2fpn")
    root.setLevel(logging.INFO)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    rank = comm.get_rank()
    file_name = "log.txt" if rank == 0 else f"log.txt.rank{rank}"
    plain = logging.Formatter("[%(asctime)s] %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
    handlers: list[logging.Handler] = [logging.FileHandler(out / file_name, encoding="utf-8")]
    if rank == 0:
        handlers.append(_StdoutHandler())
    for handler in handlers:
        handler.setFormatter(plain)
        root.addHandler(handler)


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever sys.stdout is at the moment: a live progress bar replaces it."""

    @property
    def stream(self) -> Any:
        return sys.stdout

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


def environment() -> dict[str, str]:
    """Versions and devices by name: what a run's numbers may depend on besides its configuration."""
    found = {
        "sn2fpn": __version__,
        "commit": _commit(),
        "Python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in ("torch", "torchvision", "fvcore", "pycocotools", "numpy", "pillow", "detectron2"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    if torch.cuda.is_available():
        found |= {f"GPU {i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        found["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    found["CPU"] = f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    return found


def environment_summary() -> str:
    """`environment` as a two-column table."""
    return tabulate(environment().items(), tablefmt="plain")


def _commit() -> str:
    """Of the checkout this package runs from, "abc1234" or "abc1234-dirty"; "" where there is none."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def seed_everything(seed: int) -> int:
    """Seed torch for this process; returns the seed that all processes share.

    A negative seed is replaced by a random one. With a given seed, deterministic algorithms are asked
    for, so that a run on CPUs repeats itself exactly.
    """
    if seed >= 0:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
    else:
        seed = int.from_bytes(os.urandom(4), "big") >> 1
    seed = comm.broadcast_object(seed)
    torch.manual_seed(seed + comm.get_rank())
    return seed


def scale_to_world_size(cfg: CfgNode, world_size: int) -> CfgNode:
    """The schedule for `world_size` processes when it was written for SOLVER.REFERENCE_WORLD_SIZE.

    Images per batch and learning rate grow in proportion, iterations shrink (linear scaling rule,
    Goyal et al., "Accurate, Large Minibatch SGD", 2017), as Detectron2 does it. Returns a new cfg.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference == 0 or reference == world_size:
        return cfg
    scale = world_size / reference
    cfg = cfg.clone()
    cfg.defrost()
    s = cfg.SOLVER
    s.IMS_PER_BATCH = round(s.IMS_PER_BATCH * scale)
    s.BASE_LR *= scale
    s.MAX_ITER = round(s.MAX_ITER / scale)
    s.WARMUP_ITERS = round(s.WARMUP_ITERS / scale)
    s.STEPS = tuple(round(x / scale) for x in s.STEPS)
    s.CHECKPOINT_PERIOD = round(s.CHECKPOINT_PERIOD / scale)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / scale)
    s.REFERENCE_WORLD_SIZE = world_size
    cfg.freeze()
    return cfg
