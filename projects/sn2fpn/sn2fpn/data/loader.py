"""Data loaders that yield batches of model inputs for training and evaluation."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .. import distributed
from ..errors import ArgumentError, UserError, argument_names, check_choice
from .files import check_files_exist
from .mapper import DatasetMapper, build_mapper
from .records import DatasetDicts, Records
from .samplers import (
    SAMPLERS,
    BatchStream,
    InferenceSampler,
    RepeatFactorTrainingSampler,
    Sample,
    TrainingSampler,
    repeat_factors,
    sample_rng,
)
from .selection import MASK_KEYS, check_classes, keep_learnable, mask_format_of, read_records, require_annotations
from .statistics import class_histogram
from .workers import batches_of

__all__ = [
    "BatchLoader",
    "build_test_loader",
    "build_train_loader",
    "make_test_loader",
    "make_train_loader",
    "resolve_seed",
]

logger = logging.getLogger(__name__)

_TRIES = 1000  # images that a mapper may leave out, one after the other


class BatchLoader:
    """An iterable over batches, which are lists of model inputs. Worker processes prepare batches in advance.

    Iterating raises the `UserError` of a broken image unchanged, also when a worker process found it, and `WorkerDied`
    when a worker process has ended.

    Args:
        dataset_dicts: the images.
        mapper: turns a data set dict and a random generator into a model input.
        batches: yields lists of (position, index), without end for training.
        seed: decides the augmentation of a sample, together with its position.
        num_workers: number of worker processes; 0 loads the data in this process.
    """

    def __init__(
        self,
        dataset_dicts: DatasetDicts | Records,
        mapper: DatasetMapper,
        batches: Iterable[list[Sample]],
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.seed = seed
        self.num_images = len(dataset_dicts)
        self._loader = DataLoader(
            _MappedDataset(dataset_dicts, mapper, seed),
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=num_workers,
            collate_fn=_as_list,
            worker_init_fn=_init_worker,
            pin_memory=torch.cuda.is_available(),  # from there, copies to a GPU run beside the computation
            generator=torch.Generator(),  # iterating must not change the state of the global generator
        )

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in batches_of(self._loader):
            for item in batch:
                if isinstance(item, UserError):
                    raise item
            yield batch

    def __len__(self) -> int:
        """Return the number of batches; the endless training stream raises a TypeError."""
        return len(self._loader)


class _MappedDataset(Dataset):
    """A dataset that stores data set dicts as bytes, which worker processes share, and maps them on access."""

    def __init__(self, dataset_dicts: DatasetDicts | Records, mapper: DatasetMapper, seed: int) -> None:
        self._records = Records.of(dataset_dicts)
        self._mapper = mapper
        self._seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, sample: Sample) -> dict[str, Any] | UserError:
        position, index = sample
        try:
            others = (self._records,) if getattr(self._mapper, "mixes", False) else ()
            rng = sample_rng(self._seed, position)
            for _ in range(_TRIES):
                image = self._mapper(self._records[index], rng, *others)
                if image is not None:
                    return image
                index = int(rng.integers(len(self)))  # a mapper of scripts leaves an image out by returning None
            raise UserError(f"mapper: expected a model input, found None for {_TRIES} images, one after the other")
        except UserError as e:  # returned instead of raised, because the loader adds the worker's traceback to errors
            return e


def build_train_loader(
    cfg: Any, *, start_iter: int = 0, dataset_dicts: DatasetDicts | None = None, seed: int | None = None
) -> BatchLoader:
    """Build the endless training loader of a configuration, which yields this process's share of each batch.

    Args:
        start_iter: the iteration to resume at; the batches before it are skipped without loading their images.
        dataset_dicts: the images; None reads the data sets of `DATASETS.TRAIN`.
        seed: decides the order and the augmentation of the images; None takes `SEED`. A negative seed is replaced by a
            random one that all processes share. The loader's attribute `seed` holds the seed in use.

    Raises:
        ArgumentError: a key has a wrong value, or the classes or masks of the data do not fit the model.
        UserError: a data set is unknown or cannot be read, or image files are missing.
    """
    mapper, c = build_mapper(cfg, is_train=True), cfg.DATALOADER
    records: DatasetDicts | Records
    if dataset_dicts is None:
        with argument_names({"filter_empty": "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "mask_format": MASK_KEYS}):
            records = read_records(
                cfg.DATASETS.TRAIN, c.FILTER_EMPTY_ANNOTATIONS, "DATASETS.TRAIN", mask_format_of(cfg)
            )
        table = class_histogram(records.without_masks(), check_classes(cfg, cfg.DATASETS.TRAIN))
        logger.info("Training data %s:\n%s", ", ".join(cfg.DATASETS.TRAIN), table)
    else:
        records = keep_learnable(cfg, dataset_dicts, "the training data")
    keys = {
        "total_batch_size": "SOLVER.IMS_PER_BATCH",
        "sampler": "DATALOADER.SAMPLER_TRAIN",
        "repeat_threshold": "DATALOADER.REPEAT_THRESHOLD",
    }
    with argument_names(keys):
        return make_train_loader(
            records,
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
    dataset: DatasetDicts | Records,
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
    """Make an endless training loader, which yields this process's share of each batch.

    Args:
        dataset: the images.
        mapper: turns a data set dict into a model input.
        total_batch_size: number of images per batch, over all processes.
        num_workers: number of worker processes; 0 loads the data in this process.
        sampler: "TrainingSampler" shows each image once per epoch, "RepeatFactorTrainingSampler" shows images with rare
            classes more often.
        repeat_threshold: the share of the images below which "RepeatFactorTrainingSampler" repeats a class.
        repeat_sqrt: repeat by the square root of the ratio instead of the ratio.
        aspect_ratio_grouping: fill each batch with either wide or tall images.
        seed: see `build_train_loader`.
        start_iter: see `build_train_loader`.

    Raises:
        ArgumentError: the sampler is unknown, or the batch cannot be divided among the processes.
        UserError: image files are missing.
    """
    share = images_per_process(total_batch_size)
    check_choice("sampler", sampler, SAMPLERS)
    records = _packed(dataset, mapper)
    bare = records.without_masks()
    require_annotations(bare, "the training data")
    check_files_exist(bare)
    seed = resolve_seed(seed)
    if sampler == "RepeatFactorTrainingSampler":
        with argument_names({"threshold": "repeat_threshold"}):
            factors = repeat_factors(bare, repeat_threshold, repeat_sqrt)
        indices: TrainingSampler = RepeatFactorTrainingSampler(factors, seed)
    else:
        indices = TrainingSampler(len(records), seed)
    wide = [d["width"] > d["height"] for d in bare] if aspect_ratio_grouping else None
    batches = BatchStream(indices, share, distributed.get_rank(), distributed.get_world_size(), wide, start_iter)
    return BatchLoader(records, mapper, batches, seed, num_workers)


def build_test_loader(cfg: Any, name: str, *, with_targets: bool = False) -> BatchLoader:
    """Build the loader of one data set for evaluation: one image per batch, each image once over all processes.

    Args:
        with_targets: add `instances` to the inputs, for computing losses on held-out data.

    Raises:
        ArgumentError: the classes of the data do not fit the model, or targets need masks and the data have none.
        UserError: the data set is unknown or cannot be read, or image files are missing.
    """
    with argument_names({"mask_format": MASK_KEYS}):
        mask_format = mask_format_of(cfg) if with_targets else None
        records = read_records(name, where="DATASETS.TEST", mask_format=mask_format)
    check_classes(cfg, name)
    mapper = build_mapper(cfg, is_train=False, with_targets=with_targets)
    return make_test_loader(records, mapper, num_workers=cfg.DATALOADER.NUM_WORKERS)


def make_test_loader(dataset: DatasetDicts | Records, mapper: DatasetMapper, *, num_workers: int = 4) -> BatchLoader:
    """Make a loader with one image per batch and each image once over all processes.

    See `make_train_loader` for the arguments.
    """
    records = _packed(dataset, mapper)
    bare = records.without_masks()
    if getattr(mapper, "with_targets", False):
        require_annotations(bare, "the data for losses")
    check_files_exist(bare)
    sampler = InferenceSampler(len(records), distributed.get_rank(), distributed.get_world_size())
    batches = [[s] for s in sampler]
    return BatchLoader(records, mapper, batches, num_workers=num_workers)


def images_per_process(total_batch_size: int) -> int:
    """Return how many images of a batch each process loads; an ArgumentError says that they cannot be divided."""
    world_size = distributed.get_world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        expected = f"expected a multiple of the number of processes ({world_size})"
        raise ArgumentError("total_batch_size", f"{expected}, found {total_batch_size}")
    return total_batch_size // world_size


def resolve_seed(seed: int) -> int:
    """Return the seed itself, or for a negative one a random seed that all processes share."""
    if seed >= 0:
        return seed
    return distributed.broadcast_object(int(np.random.SeedSequence().generate_state(1)[0]))


def _packed(dataset: DatasetDicts | Records, mapper: DatasetMapper) -> Records:
    """Return data set dicts as bytes, without the masks if the mapper does not use them: they are most of the bytes."""
    unused = isinstance(mapper, DatasetMapper) and not mapper.reads_masks
    return Records.of(dataset, with_masks=not unused)


def _as_list(batch: list[Any]) -> list[Any]:
    return batch


def _init_worker(_: int) -> None:
    """Limit a worker to one thread, because workers share the cores, and end one whose main process was killed.

    torch notices only a death that comes later. The parent of a worker of a fork server is that server.
    """
    torch.set_num_threads(1)
    if multiprocessing.get_start_method() != "forkserver" and os.getppid() != multiprocessing.parent_process().pid:
        os._exit(1)
