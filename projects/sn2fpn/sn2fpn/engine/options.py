"""The options of a run, such as its length, periods and precision, from YAML and Python configurations alike."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import distributed as comm
from ..checkpoint.last import read_last
from ..config.ranges import RANGES
from ..errors import UserError, argument_names, counted
from ..signatures import fits, type_words
from .remote import check_installed

__all__ = ["LAZY_KEYS", "LAZY_RANGES", "YAML_KEYS", "RunOptions", "check_options", "read_options", "world_size"]

YAML_KEYS = dict(
    output_dir="OUTPUT_DIR",
    weights="MODEL.WEIGHTS",
    device="MODEL.DEVICE",
    seed="SEED",
    max_iter="SOLVER.MAX_ITER",
    images_per_batch="SOLVER.IMS_PER_BATCH",
    reference_world_size="SOLVER.REFERENCE_WORLD_SIZE",
    accumulate_steps="SOLVER.ACCUMULATE_STEPS",
    checkpoint_period="SOLVER.CHECKPOINT_PERIOD",
    checkpoints_to_keep="SOLVER.CHECKPOINTS_TO_KEEP",
    amp="SOLVER.AMP.ENABLED",
    amp_dtype="SOLVER.AMP.DTYPE",
    zero="SOLVER.ZERO",
    compile="MODEL.COMPILE",
    cuda_graphs="MODEL.CUDA_GRAPHS",
    ema="SOLVER.EMA.ENABLED",
    ema_decay="SOLVER.EMA.DECAY",
    eval_period="TEST.EVAL_PERIOD",
    best_metric="TEST.BEST_METRIC",
    patience="TEST.PATIENCE",
    val_loss="TEST.VAL_LOSS",
    wandb="LOGGING.WANDB",
    mlflow="LOGGING.MLFLOW",
    float32_precision="FLOAT32_PRECISION",
    cudnn_benchmark="CUDNN_BENCHMARK",
    # these appear in messages only
    lr="SOLVER.BASE_LR",
    warmup_iters="SOLVER.WARMUP_ITERS",
    clip="SOLVER.CLIP_GRADIENTS.ENABLED",
    trunk_norm="MODEL.RESNETS.NORM",
    train_sets="DATASETS.TRAIN",
    test_sets="DATASETS.TEST",
)
"""The key of each field of `RunOptions` in a YAML configuration."""

LAZY_KEYS = dict(
    output_dir="train.output_dir",
    weights="train.init_checkpoint",
    device="train.device",
    seed="train.seed",
    max_iter="train.max_iter",
    images_per_batch="dataloader.train.total_batch_size",
    accumulate_steps="train.accumulate_steps",
    checkpoint_period="train.checkpointer.period",
    checkpoints_to_keep="train.checkpointer.max_to_keep",
    log_period="train.log_period",
    amp="train.amp.enabled",
    amp_dtype="train.amp.dtype",
    zero="train.zero",
    compile="train.compile",
    cuda_graphs="train.cuda_graphs",
    ema="train.ema.enabled",
    ema_decay="train.ema.decay",
    eval_period="train.eval_period",
    best_metric="train.best_metric",
    patience="train.patience",
    val_loss="train.val_loss",
    wandb="train.wandb",
    mlflow="train.mlflow",
    float32_precision="train.float32_precision",
    cudnn_benchmark="train.cudnn_benchmark",
    ddp="train.ddp",
    lr="optimizer.lr",
    warmup_iters="lr_multiplier.warmup_iters",
    clip="train.clip_gradients.enabled",
    trunk_norm="model.backbone.bottom_up.norm",
    train_sets="dataloader.train.dataset.names",
    test_sets="dataloader.test.dataset.names",
)
"""The key of each field of `RunOptions` in a Python configuration; it is Detectron2's key where there is one."""

LAZY_RANGES = {key: LAZY_KEYS[name] for name, key in YAML_KEYS.items() if key in RANGES and name in LAZY_KEYS} | {
    "DATALOADER.NUM_WORKERS": "dataloader.train.num_workers",
    "DATALOADER.REPEAT_THRESHOLD": "dataloader.train.repeat_threshold",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.WEIGHT_DECAY": "optimizer.weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "optimizer.params.weight_decay_norm",
    "SOLVER.BIAS_LR_FACTOR": "optimizer.params.bias_lr_factor",
    "TEST.DETECTIONS_PER_IMAGE": "dataloader.evaluator.max_dets_per_image",
}
"""The keys of a Python configuration whose values have the range of a key of YAML configurations."""

_DDP = {"broadcast_buffers": False, "find_unused_parameters": False, "fp16_compression": False}
_MISSING = object()


@dataclass(frozen=True)
class RunOptions:
    """The options of the training loop and its hooks."""

    output_dir: str = "./output"
    weights: str = ""  # the weights to start from or to evaluate; "" for fresh ones
    device: str = "cuda"
    seed: int = -1  # a negative seed stands for a random one
    max_iter: int = 90000
    images_per_batch: int = 16  # over all processes; 0 for a loader of a user's own that does not tell
    reference_world_size: int = 0  # see `scale_to_world_size`
    accumulate_steps: int = 1
    checkpoint_period: int = 5000
    checkpoints_to_keep: int | None = 3  # the newest periodic ones; 0 and None keep all
    log_period: int = 20
    amp: bool = False
    amp_dtype: str = "auto"
    zero: bool = False  # whether processes divide the state of the optimizer
    compile: bool = False  # whether torch compiles the trunk and the pyramid
    cuda_graphs: bool = False  # whether a training on a GPU runs them as CUDA graphs
    ema: bool = False
    ema_decay: float = 0.999
    eval_period: int = 0  # with 0, the model is evaluated at the end only
    best_metric: str = ""
    patience: int = 0
    val_loss: bool = False
    wandb: bool = False  # whether metrics are sent to Weights & Biases
    mlflow: bool = False
    float32_precision: str = ""
    cudnn_benchmark: bool = False
    ddp: Mapping[str, Any] = field(default_factory=lambda: dict(_DDP))  # arguments of DistributedDataParallel
    keys: Mapping[str, str] = field(default_factory=lambda: YAML_KEYS, repr=False)

    @property
    def precision(self) -> torch.dtype | None:
        """The dtype of mixed precision, in training as in evaluation; None for single precision."""
        if not self.amp:
            return None
        auto = "float16" if self.device.startswith("cuda") else "bfloat16"
        return getattr(torch, auto if self.amp_dtype == "auto" else self.amp_dtype)

    @property
    def services(self) -> list[str]:
        """The names of the services that metrics are sent to, which are also those of their libraries."""
        return [name for name in ("wandb", "mlflow") if getattr(self, name)]

    def key(self, name: str) -> str:
        """Return the user's configuration key of a field, or of another value that messages name."""
        return self.keys[name]


def read_options(config: Any, keys: Mapping[str, str]) -> RunOptions:
    """Return the options that a configuration holds, with defaults for those that it does not hold.

    Args:
        config: a tree of mappings.
        keys: `YAML_KEYS` or `LAZY_KEYS`.

    Raises:
        UserError: a value has the wrong type, or is null where null has no meaning.
    """
    values: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(RunOptions).items():
        node = config if name in keys else _MISSING
        for part in keys.get(name, "").split("."):
            node = node[part] if isinstance(node, Mapping) and part in node else _MISSING
        if node is _MISSING:
            continue
        if not fits(node, hint):
            raise UserError(f"{keys[name]} expects {type_words(hint)}, found {node!r}")
        values[name] = node
    return RunOptions(**values, keys=keys)


def check_options(o: RunOptions, args: Any, *, has_train: bool, has_test: bool) -> None:
    """Check what would otherwise fail hours later.

    Args:
        o: the options.
        args: the command line, from `default_argument_parser`; None stands for training in the present processes.
        has_train: whether the configuration names data sets to train on.
        has_test: whether the configuration names data sets to evaluate on.

    Raises:
        UserError: keys and flags contradict each other.
    """
    if o.log_period < 1:
        raise UserError(f"{o.key('log_period')}: expected a whole number of at least 1, found {o.log_period}")
    if args is not None and args.eval_only:
        if not (o.weights or (args.resume and read_last(o.output_dir))):
            usual = Path(o.output_dir) / "model_final.pth"
            raise UserError(f"{o.key('weights')} is empty; an evaluation needs a checkpoint, for example {usual}")
        if not has_test:
            example = "for example coco_2017_val"
            raise UserError(f"{o.key('test_sets')} is empty; an evaluation needs a data set, {example}")
        return
    if o.patience and not o.best_metric:
        raise UserError(f"{o.key('patience')} needs a metric in {o.key('best_metric')}, for example bbox/AP")
    if (o.patience or o.val_loss) and not has_test:
        raise UserError(f"{o.key('patience')} and {o.key('val_loss')} need a data set in {o.key('test_sets')}")
    if not has_train:
        raise UserError(f"{o.key('train_sets')} is empty; name at least one data set")
    for name in o.services:
        with argument_names({"service": o.key(name)}):
            check_installed(name)
    _check_graphs(o, world_size(args))
    _check_batch(o, world_size(args))


def world_size(args: Any = None) -> int:
    """Return the number of processes that have joined, or else that a command line, or torchrun around it, starts."""
    if args is None or comm.get_world_size() > 1:
        return comm.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if comm.is_launched() else args.num_gpus * args.num_machines


def _check_graphs(o: RunOptions, processes: int) -> None:
    """Check what CUDA graphs do not go together with; on a CPU they have no effect."""
    if not (o.cuda_graphs and o.device.startswith("cuda")):
        return
    for name, used in (("compile", o.compile), ("accumulate_steps", o.accumulate_steps > 1)):
        if used:
            raise UserError(
                f"{o.key('cuda_graphs')} does not go together with {o.key(name)} {getattr(o, name)}; set one of them "
                "to its default"
            )
    if processes > 1:
        raise UserError(f"{o.key('cuda_graphs')} needs a single process, found {processes}; set it to False")


def _check_batch(o: RunOptions, processes: int) -> None:
    images, parts = o.images_per_batch, processes * o.accumulate_steps
    if o.reference_world_size not in (0, processes):
        if images % o.reference_world_size:
            raise UserError(
                f"{o.key('reference_world_size')}: expected a divisor of {o.key('images_per_batch')} {images}, or 0 "
                f"for a schedule that is not scaled, found {o.reference_world_size}"
            )
        images = images * processes // o.reference_world_size
    if images % parts:
        raise UserError(
            f"{o.key('images_per_batch')}: {images} images cannot be divided among "
            f"{counted(processes, 'process', 'processes')} times {o.key('accumulate_steps')} {o.accumulate_steps}; "
            f"choose a multiple of {parts}"
        )
