"""Data loaders: batches of model inputs for training and evaluation."""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .. import distributed
from ..errors import UserError, did_you_mean
from .catalog import DatasetDicts
from .mapper import DatasetMapper, build_mapper
from .samplers import (
    BatchStream,
    InferenceSampler,
    RepeatFactorTrainingSampler,
    Sample,
    TrainingSampler,
    repeat_factors,
    sample_rng,
)
from .selection import check_classes, get_dataset_dicts, keep_masked
from .statistics import class_histogram

__all__ = [
    "BatchLoader",
    "build_test_loader",
    "build_train_loader",
    "check_files_exist",
    "make_test_loader",
    "make_train_loader",
]

logger = logging.getLogger(__name__)

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")


class BatchLoader:
    """Iterates over batches (list of model inputs), made by worker processes ahead of their use.

    Args:
        dataset_dicts: the images.
        mapper: makes a model input of a data set dict and a random generator.
        batches: yields lists of (position, index); endless for training.
        seed: with the position, decides a sample's augmentation.
        num_workers: worker processes; 0 loads in this process.

    Iterating raises the UserError of a broken image as such, also when a worker met it.
    """

    def __init__(
        self,
        dataset_dicts: DatasetDicts,
        mapper: DatasetMapper,
        batches: Iterable[list[Sample]],
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.seed = seed
        self.num_images = len(dataset_dicts)
        self._loader = DataLoader(
            _MappedDataset(dataset_dicts, mapper, seed),
            batch_sampler=batches,
            num_workers=num_workers,  # type: ignore[arg-type]
            collate_fn=_as_list,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),
        )  # its own: iterating must not disturb the model's random numbers

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self._loader:
            for item in batch:
                if isinstance(item, UserError):
                    raise item
            yield batch

    def __len__(self) -> int:
        """Number of batches; a TypeError for the endless training stream."""
        return len(self._loader)


class _MappedDataset(Dataset):
    """Data set dicts, packed so that worker processes share them, mapped on access."""

    def __init__(self, dataset_dicts: DatasetDicts, mapper: DatasetMapper, seed: int) -> None:
        # Python objects are copied into every forked worker as their reference counts change; bytes are not.
        packed = [np.frombuffer(pickle.dumps(d, protocol=-1), dtype=np.uint8) for d in dataset_dicts]
        self._ends = np.cumsum([len(p) for p in packed])
        self._bytes = np.concatenate(packed)
        self._mapper = mapper
        self._seed = seed

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, sample: Sample) -> dict[str, Any] | UserError:
        position, index = sample
        start = self._ends[index - 1] if index else 0
        record = pickle.loads(memoryview(self._bytes)[start : self._ends[index]])
        try:
            return self._mapper(record, sample_rng(self._seed, position))
        except UserError as e:  # as a value, so that it arrives without the worker's traceback in its text
            return e


def build_train_loader(
    cfg: Any, *, start_iter: int = 0, dataset_dicts: DatasetDicts | None = None, seed: int | None = None
) -> BatchLoader:
    """The endless training loader of a configuration; this process's share of each batch.

    Args:
        start_iter: batches to skip (their images are not loaded): the iteration to resume at.
        dataset_dicts: the images, instead of those of `DATASETS.TRAIN`.
        seed: decides order and augmentation, instead of `SEED`; when neither is set (negative), a random
            one is drawn, the same for all processes. It is the loader's attribute `seed`.

    Raises:
        UserError: unknown sets or keys' values, unreadable data, classes that do not fit the model, or
            an `IMS_PER_BATCH` that cannot be split among the processes.
    """
    mapper, mask_format, c = build_mapper(cfg, is_train=True), _mask_format(cfg), cfg.DATALOADER
    if dataset_dicts is None:
        dataset_dicts = get_dataset_dicts(cfg.DATASETS.TRAIN, c.FILTER_EMPTY_ANNOTATIONS, "DATASETS.TRAIN", mask_format)
        names = check_classes(cfg, cfg.DATASETS.TRAIN)
        logger.info("training data %s:\n%s", ", ".join(cfg.DATASETS.TRAIN), class_histogram(dataset_dicts, names))
    elif mask_format:
        dataset_dicts = keep_masked(dataset_dicts, mask_format, "the training data")
    return make_train_loader(
        dataset_dicts,
        mapper,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=c.NUM_WORKERS,
        sampler=c.SAMPLER_TRAIN,
        repeat_threshold=c.REPEAT_THRESHOLD,
        repeat_sqrt=c.REPEAT_SQRT,
        aspect_ratio_grouping=c.ASPECT_RATIO_GROUPING,
        seed=cfg.SEED if seed is None else seed,
        start_iter=start_iter,
    )


def make_train_loader(
    dataset: DatasetDicts,
    mapper: DatasetMapper,
    *,
    total_batch_size: int,
    num_workers: int = 4,
    sampler: str = "TrainingSampler",
    repeat_threshold: float = 0.0,
    repeat_sqrt: bool = True,
    aspect_ratio_grouping: bool = True,
    seed: int = -1,
    start_iter: int = 0,
) -> BatchLoader:
    """The endless loader of some images; this process's share of each batch.

    Args:
        dataset: the images.
        mapper: makes a model input of a data set dict.
        total_batch_size: images per batch, over all processes.
        num_workers: processes that load ahead; 0: none.
        sampler: "TrainingSampler" (each image once an epoch), or "RepeatFactorTrainingSampler" (those with a rare
            class more often).
        repeat_threshold: of the latter: classes in fewer than this share of the images are repeated.
        repeat_sqrt: as often as the root of the ratio says, instead of the ratio.
        aspect_ratio_grouping: batches hold either wide or tall images.
        seed, start_iter: see `build_train_loader`.

    Raises:
        UserError: unknown sampler, a batch that cannot be split among the processes, missing image files.
    """
    world_size = distributed.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {total_batch_size}: expected a multiple of the {world_size} process(es)"
        )
    if sampler not in SAMPLERS:
        raise UserError(f"DATALOADER.SAMPLER_TRAIN: unknown sampler {sampler!r}{did_you_mean(sampler, SAMPLERS)}")
    check_files_exist(dataset)
    seed = _resolve_seed(seed)
    if sampler == "RepeatFactorTrainingSampler":
        factors = repeat_factors(dataset, repeat_threshold, repeat_sqrt)
        indices: TrainingSampler = RepeatFactorTrainingSampler(factors, seed)
    else:
        indices = TrainingSampler(len(dataset), seed)
    wide = [d["width"] > d["height"] for d in dataset] if aspect_ratio_grouping else None
    batches = BatchStream(indices, total_batch_size // world_size, distributed.get_rank(), world_size, wide, start_iter)
    return BatchLoader(_as_needed(dataset, mapper), mapper, batches, seed, num_workers)


def build_test_loader(cfg: Any, name: str, *, with_targets: bool = False) -> BatchLoader:
    """The loader of one set for evaluation: one image a batch, each image once over all processes.

    Args:
        with_targets: add `instances`, for losses on held-out data.

    Raises:
        UserError: unknown or unreadable set, classes that do not fit the model, or with targets, no masks for
            a model that learns them.
    """
    mask_format = _mask_format(cfg) if with_targets else None
    dataset_dicts = get_dataset_dicts(name, where="DATASETS.TEST", mask_format=mask_format)
    check_classes(cfg, name)
    mapper = build_mapper(cfg, is_train=False, with_targets=with_targets)
    return make_test_loader(dataset_dicts, mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)


def make_test_loader(dataset: DatasetDicts, mapper: DatasetMapper, *, num_workers: int = 4) -> BatchLoader:
    """One image a batch, each image once over all processes; see `make_train_loader` for the arguments."""
    check_files_exist(dataset)
    sampler = InferenceSampler(len(dataset), distributed.get_rank(), distributed.get_world_size())
    return BatchLoader(_as_needed(dataset, mapper), mapper, [[s] for s in sampler], num_workers=num_workers)


def _mask_format(cfg: Any) -> str | None:
    """The form of masks that the model learns from; None where it learns none."""
    return cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None


def _resolve_seed(seed: int) -> int:
    """A non-negative seed as it is; for a negative one a random one, the same on all processes."""
    if seed >= 0:
        return seed
    return distributed.broadcast_object(int(np.random.SeedSequence().generate_state(1)[0]))


def check_files_exist(dataset_dicts: DatasetDicts) -> None:
    """Missing pictures are found now, not after hours; a listing per folder is cheap also on network disks."""
    wanted: dict[Path, list[str]] = {}
    for path in (Path(d["file_name"]) for d in dataset_dicts):
        wanted.setdefault(path.parent, []).append(path.name)
    missing: list[Path] = []
    for folder, names in wanted.items():
        there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        missing += [folder / name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{missing[0]}: image file does not exist ({len(missing)} of {len(dataset_dicts)} images are missing)"
        )


def _as_needed(dataset: DatasetDicts, mapper: DatasetMapper) -> DatasetDicts:
    """Without the masks that the mapper has no use for: they are most of a file's bytes."""
    if not isinstance(mapper, DatasetMapper) or (mapper.with_targets and mapper.mask_format):
        return dataset
    return [
        {**d, "annotations": [{k: v for k, v in a.items() if k != "segmentation"} for a in d["annotations"]]}
        for d in dataset
    ]


def _as_list(batch: list[Any]) -> list[Any]:
    return batch


def _init_worker(_: int) -> None:
    """Workers share the cores: one thread each. Ctrl-C is the main process's business."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
