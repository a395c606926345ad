"""Fixtures of the GPU's tests: the device under test, and the comparison of a computation there with the CPU's.

Without a GPU these tests are skipped. `SN2FPN_GPU_TESTS_ON=cpu` rehearses them on a CPU. While the device under test
computes, tensors then pretend not to lie on a CPU, so that the code takes the branches of a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_comparison import Both

from small_runs import small_run
from sn2fpn.config import CfgNode, get_cfg

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # matrix products on a GPU can be repeated exactly


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let torch warn of operations that are not deterministic on a GPU, which runs with a seed ask it to do."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings("ignore:.*determinis:UserWarning"))


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device under test."""
    found = torch.device(os.environ.get("SN2FPN_GPU_TESTS_ON", "cuda"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU; SN2FPN_GPU_TESTS_ON=cpu rehearses the tests on a CPU")
    return found


@pytest.fixture(autouse=True)
def _float32_without_shortcuts(device: torch.device, leave_no_trace: None) -> Iterator[None]:
    """Compute float32 in full precision, without TF32, and clean up after each test, which may run a trainer."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    if device.type == "cuda":
        torch.cuda.empty_cache()


@pytest.fixture
def both(device: torch.device) -> Both:
    """The comparison of the device under test with the CPU."""
    return Both(device)


@pytest.fixture(scope="session")
def tiny_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration keys of a small run on 8 images of shapes, whose seed is random."""
    keys = small_run(tmp_path_factory.mktemp("tiny_gpu") / "shapes", "tiny_gpu")
    return keys | {"SEED": -1, "SOLVER.MAX_ITER": 4}


@pytest.fixture
def tiny_cfg(tiny_keys: dict[str, Any], device: torch.device, tmp_path: Path) -> Callable[..., CfgNode]:
    """`tiny_cfg({"SOLVER.MAX_ITER": 8, …})` returns the configuration of the small run on the device with changes."""

    def make(changes: dict[str, Any] | None = None) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(str(ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"))
        keys = tiny_keys | {"MODEL.DEVICE": str(device), "OUTPUT_DIR": str(tmp_path / "out")} | (changes or {})
        cfg.merge_from_list([x for pair in keys.items() for x in pair])
        return cfg

    return make
