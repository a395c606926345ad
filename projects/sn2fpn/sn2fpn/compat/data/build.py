"""Detectron2's loaders, which are those of this package, also with a mapper or a list of images of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ... import distributed as comm
from ...config import CfgNode
from ...data import (
    BatchLoader,
    build_mapper,
    build_test_loader,
    build_train_loader,
    get_dataset_dicts,
    make_test_loader,
    make_train_loader,
)
from ...data.loader import images_per_process, resolve_seed
from ...data.samplers import BatchStream
from ...data.selection import check_classes, keep_learnable, mask_format_of
from ...errors import ArgumentError
from ..absent import absent, refuse
from .dataset_mapper import PerImageSeed

__all__ = ["build_detection_test_loader", "build_detection_train_loader", "get_detection_dataset_dicts"]

__getattr__ = absent(__name__, __all__)

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict[str, Any]]:
    """Return the data set dicts of one or several data sets; see `sn2fpn.data.get_dataset_dicts`.

    Args:
        names: registered data sets with the same classes.
        filter_empty: leave out images without boxes.
        min_keypoints: must be 0, because there are no keypoints.
        proposal_files: must be None, because proposals are computed.
        check_consistency: has no effect, because the classes of the data sets are always compared.

    Raises:
        ArgumentError: `min_keypoints` or `proposal_files` is given.
        UserError: see `sn2fpn.data.get_dataset_dicts`.
    """
    refuse(0, min_keypoints=min_keypoints)
    refuse(None, proposal_files=proposal_files)
    return get_dataset_dicts(names, filter_empty)


def build_detection_train_loader(
    cfg: CfgNode | Sequence[dict[str, Any]] | None = None,
    mapper: Mapper | None = None,
    *,
    dataset: Sequence[dict[str, Any]] | None = None,
    sampler: Iterable[int] | None = None,
    total_batch_size: int | None = None,
    aspect_ratio_grouping: bool | None = None,
    num_workers: int | None = None,
    collate_fn: None = None,
) -> BatchLoader:
    """Return the endless training loader of a configuration, or of a list of images.

    Args:
        cfg: the configuration. A list of data set dicts in its place is `dataset`.
        mapper: maps a data set dict to a model input. By default it is that of the configuration.
        dataset: the images. By default they are those of `DATASETS.TRAIN`.
        sampler: yields the indices of this process's images without end, see `samplers`. By default the configuration
            chooses the order.
        total_batch_size: number of images per batch over all processes, by default `SOLVER.IMS_PER_BATCH`.
        aspect_ratio_grouping: fill each batch with either wide or tall images, by default as the configuration says.
        num_workers: number of worker processes, by default as the configuration says, or 0 without one.
        collate_fn: must be None, because batches are lists.

    Raises:
        ArgumentError: `collate_fn` is given, or without a configuration something is missing.
        UserError: see `sn2fpn.data.build_train_loader`.
    """
    refuse(None, collate_fn=collate_fn)
    options: dict[str, Any]
    if isinstance(cfg, CfgNode):
        cfg = _changed(cfg, total_batch_size, aspect_ratio_grouping, num_workers)
        if mapper is None and sampler is None:
            return build_train_loader(cfg, dataset_dicts=None if dataset is None else list(dataset))
        images, options = _training_images(cfg, dataset), _training_options(cfg)
        prepare = build_mapper(cfg, is_train=True) if mapper is None else PerImageSeed(mapper)
    else:
        images = list(_required("dataset", cfg if dataset is None else dataset))
        prepare = PerImageSeed(_required("mapper", mapper))
        options = {
            "total_batch_size": _required("total_batch_size", total_batch_size),
            "num_workers": num_workers or 0,
            "aspect_ratio_grouping": aspect_ratio_grouping is not False,
        }
    if sampler is None:
        return make_train_loader(images, prepare, **options)  # type: ignore[arg-type]
    return _in_the_order_of(sampler, images, prepare, options)


def _training_images(cfg: CfgNode, dataset: Sequence[dict[str, Any]] | None) -> Any:
    if dataset is not None:
        return keep_learnable(cfg, list(dataset), "the training data")
    check_classes(cfg, cfg.DATASETS.TRAIN)
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    return get_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty, "DATASETS.TRAIN", mask_format_of(cfg))


def _training_options(cfg: CfgNode) -> dict[str, Any]:
    loading = cfg.DATALOADER
    return {
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "num_workers": loading.NUM_WORKERS,
        "sampler": loading.SAMPLER_TRAIN,
        "repeat_threshold": loading.REPEAT_THRESHOLD,
        "repeat_sqrt": loading.REPEAT_SQRT,
        "aspect_ratio_grouping": loading.ASPECT_RATIO_GROUPING,
        "seed": cfg.SEED,
    }


class _Positions:
    """The indices of a sampler for this process, each with a number of its own over all processes."""

    def __init__(self, sampler: Iterable[int], size: int) -> None:
        self.sampler, self.size = sampler, size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(itertools.count(comm.get_rank(), comm.get_world_size()), self.sampler)


def _in_the_order_of(
    sampler: Iterable[int], images: Sequence[dict[str, Any]], mapper: Any, options: dict[str, Any]
) -> BatchLoader:
    """Return a training loader that takes its images in the order of a sampler of one's own."""
    wide = [image["width"] > image["height"] for image in images] if options["aspect_ratio_grouping"] else None
    share = images_per_process(options["total_batch_size"])
    batches = BatchStream(_Positions(sampler, len(images)), share, wide=wide)  # type: ignore[arg-type]
    return BatchLoader(list(images), mapper, batches, resolve_seed(options.get("seed", -1)), options["num_workers"])


def build_detection_test_loader(
    cfg: CfgNode | Sequence[dict[str, Any]] | None = None,
    dataset_name: str | Sequence[str] | None = None,
    mapper: Mapper | None = None,
    *,
    dataset: Sequence[dict[str, Any]] | None = None,
    sampler: Any = None,
    batch_size: int = 1,
    num_workers: int | None = None,
    collate_fn: None = None,
) -> BatchLoader:
    """Return a loader with one image per batch and each image once over all processes.

    Args:
        cfg: the configuration. A list of data set dicts in its place is `dataset`.
        dataset_name: a registered data set, or several.
        mapper: maps a data set dict to a model input. By default it is that of the configuration.
        dataset: the images, in place of `dataset_name`.
        sampler: must be None.
        batch_size: must be 1.
        num_workers: number of worker processes, by default as the configuration says, or 0 without one.
        collate_fn: must be None, because batches are lists.

    Raises:
        ArgumentError: `sampler` or `collate_fn` is given, `batch_size` is not 1, or something is missing.
        UserError: see `sn2fpn.data.build_test_loader`.
    """
    refuse(None, sampler=sampler, collate_fn=collate_fn)
    if batch_size != 1:
        raise ArgumentError("batch_size", f"expected 1, because images are evaluated one by one, found {batch_size}")
    has_config = isinstance(cfg, CfgNode)
    if not has_config or dataset is not None:
        images = _required("dataset", cfg if dataset is None else dataset)
    else:
        name = _required("dataset_name", dataset_name)
        if mapper is None and isinstance(name, str):
            return build_test_loader(_changed(cfg, None, None, num_workers), name)
        check_classes(cfg, name)
        images = get_dataset_dicts(name)
    if mapper is None and has_config:
        from .dataset_mapper import DatasetMapper

        mapper = DatasetMapper(cfg, is_train=False)
    workers = num_workers if num_workers is not None else (cfg.DATALOADER.NUM_WORKERS if has_config else 0)
    return make_test_loader(list(images), PerImageSeed(_required("mapper", mapper)), num_workers=workers)  # type: ignore[arg-type]


def _required(argument: str, value: Any) -> Any:
    if value is None:
        raise ArgumentError(argument, "expected a value, because no configuration says it, found None")
    return value


def _changed(cfg: CfgNode, batch_size: int | None, grouping: bool | None, workers: int | None) -> CfgNode:
    """Return a configuration with the values that are not None."""
    cfg = cfg.clone()
    cfg.defrost()
    if batch_size is not None:
        cfg.SOLVER.IMS_PER_BATCH = batch_size
    if grouping is not None:
        cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    if workers is not None:
        cfg.DATALOADER.NUM_WORKERS = workers
    return cfg
