"""Fixtures of the tests of Detectron2's engine, which import Detectron2 themselves and are skipped without it."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from their_trainer import Command

from sn2fpn.engine import default_argument_parser

QUICK = Path(__file__).parents[3] / "configs" / "quick"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave out the warnings of Detectron2's own code, and what its runs leave in memory."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()  # Detectron2's trainers leave files open until they are collected
    for name in ("tiny_train", "tiny_val"):
        for catalog in (DatasetCatalog, MetadataCatalog):
            if name in catalog:
                catalog.remove(name)
    for name in ("sn2fpn", "detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True


@pytest.fixture
def command(tiny_keys: dict[str, Any], tmp_path: Path) -> Command:
    """`command("sni", "--resume", SOLVER__MAX_ITER=4)` returns the parsed arguments of the small run."""

    def make(name: str, *flags: str, config: Path | str | None = None, **keys: Any) -> Any:
        keys = tiny_keys | {"OUTPUT_DIR": str(tmp_path / "out")} | {k.replace("__", "."): v for k, v in keys.items()}
        config = config or QUICK / f"faster_rcnn_R18_{name}_shapes.yaml"
        args = default_argument_parser().parse_args(["--config-file", str(config), *flags])
        args.opts = [x for pair in keys.items() for x in pair]
        return args

    return make
