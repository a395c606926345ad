"""How a run goes on around its model: lengths, periods, precision. The same for YAML and Python configs."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError, did_you_mean
from ..signatures import fits

__all__ = ["LAZY_KEYS", "YAML_KEYS", "RunOptions", "check_options", "read_options"]

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
    ema="SOLVER.EMA.ENABLED",
    ema_decay="SOLVER.EMA.DECAY",
    eval_period="TEST.EVAL_PERIOD",
    best_metric="TEST.BEST_METRIC",
    patience="TEST.PATIENCE",
    val_loss="TEST.VAL_LOSS",
    float32_precision="FLOAT32_PRECISION",
    cudnn_benchmark="CUDNN_BENCHMARK",
    # named in messages only
    lr="SOLVER.BASE_LR",
    warmup_iters="SOLVER.WARMUP_ITERS",
    clip="SOLVER.CLIP_GRADIENTS.ENABLED",
    trunk_norm="MODEL.RESNETS.NORM",
    train_sets="DATASETS.TRAIN",
    test_sets="DATASETS.TEST",
)
"""Field of `RunOptions` -> its key in a YAML config."""

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
    ema="train.ema.enabled",
    ema_decay="train.ema.decay",
    eval_period="train.eval_period",
    best_metric="train.best_metric",
    patience="train.patience",
    val_loss="train.val_loss",
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
"""Field of `RunOptions` -> its key in a Python config; Detectron2's where it has one."""


@dataclass(frozen=True)
class RunOptions:
    """What the training loop and its hooks need to know. `key` gives a field's name in the user's configuration."""

    output_dir: str = "./output"
    weights: str = ""  # to start from, or to evaluate; "": fresh
    device: str = "cuda"
    seed: int = -1  # negative: a random one
    max_iter: int = 90000
    images_per_batch: int = 16  # over all processes
    reference_world_size: int = 0  # see `setup.scale_to_world_size`
    accumulate_steps: int = 1
    checkpoint_period: int = 5000
    checkpoints_to_keep: int = 0  # 0: all
    log_period: int = 20
    amp: bool = False
    amp_dtype: str = "auto"
    ema: bool = False
    ema_decay: float = 0.999
    eval_period: int = 0  # 0: at the end only
    best_metric: str = ""
    patience: int = 0
    val_loss: bool = False
    float32_precision: str = ""
    cudnn_benchmark: bool = False
    ddp: Mapping[str, Any] = field(default_factory=lambda: {"broadcast_buffers": False})  # DistributedDataParallel's
    keys: Mapping[str, str] = field(default_factory=lambda: YAML_KEYS, repr=False)

    def key(self, name: str) -> str:
        """The configuration key of a field (or of what else messages name)."""
        return self.keys[name]


def read_options(config: Any, keys: Mapping[str, str]) -> RunOptions:
    """The options that a configuration holds; what it does not hold keeps its default.

    Args:
        config: a tree with `in` and `[]`.
        keys: `YAML_KEYS` or `LAZY_KEYS`.

    Raises:
        UserError: a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(RunOptions).items():
        node = config
        for part in keys[name].split(".") if name in keys else ():
            node = node[part] if isinstance(node, Mapping) and part in node else None
        if name not in keys or node is None:
            continue
        if not fits(node, hint):
            expected = getattr(hint, "__name__", hint)
            raise UserError(f"{keys[name]} expects {expected}, found {type(node).__name__} {node!r}")
        values[name] = node
    return RunOptions(**values, keys=keys)


def check_options(o: RunOptions, args: Any, *, has_train: bool, has_test: bool) -> None:
    """Catch what would otherwise fail hours later.

    Args:
        args: of `default_argument_parser`.
        has_train, has_test: whether there are data sets for that.

    Raises:
        UserError: an impossible combination of keys and flags.
    """
    world = args.num_gpus * args.num_machines
    if "WORLD_SIZE" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
    images = o.images_per_batch
    if o.reference_world_size:
        images = round(images * world / o.reference_world_size)
    if not args.eval_only and images % (world * o.accumulate_steps):
        raise UserError(
            f"{o.key('images_per_batch')} {images} does not divide into {world} processes x "
            f"{o.key('accumulate_steps')} {o.accumulate_steps}; "
            f"choose a multiple of {world * o.accumulate_steps}"
        )
    if o.amp_dtype not in ("auto", "float16", "bfloat16"):
        hint = did_you_mean(o.amp_dtype, ("auto", "float16", "bfloat16"))
        raise UserError(f"{o.key('amp_dtype')}: unknown {o.amp_dtype!r}{hint}")
    for name in ("max_iter", "checkpoint_period", "accumulate_steps", "log_period"):
        if getattr(o, name) <= 0:
            raise UserError(f"{o.key(name)}: expected a positive number, found {getattr(o, name)}")
    if o.patience and not o.best_metric:
        raise UserError(f"{o.key('patience')} needs {o.key('best_metric')}, e.g. bbox/AP")
    if (o.best_metric or o.val_loss) and not has_test:
        raise UserError(f"{o.key('best_metric')} and {o.key('val_loss')} need a data set in {o.key('test_sets')}")
    if args.eval_only and not o.weights:
        raise UserError(f"--eval-only: {o.key('weights')} is empty; set it to path/to/model_final.pth")
    if args.eval_only and not has_test:
        raise UserError(f"--eval-only: {o.key('test_sets')} is empty; name a data set, e.g. coco_2017_val")
    if not args.eval_only and not has_train:
        raise UserError(f"{o.key('train_sets')} is empty; name at least one data set")
