"""Tests of MODEL.CUDA_GRAPHS without a GPU: what is recorded and when, what stays as it was, and the messages.

`tests/gpu` compares the numbers of recorded and other steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer, cuda_graphs, default_argument_parser
from sn2fpn.engine.config import validate
from sn2fpn.engine.cuda_graphs import Graphs, graphs_of_backbone
from sn2fpn.engine.options import RunOptions
from sn2fpn.errors import UserError

MakeCfg = Callable[..., CfgNode]


class Recorder:
    """Stands for torch's function, which needs a GPU: it runs what it is given twice, as torch does to warm up."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.cached: list[bool] = []

    def __call__(self, part: nn.Module, inputs: tuple[Tensor], **_: Any) -> Callable[[Tensor], Any]:
        self.sizes.append(tuple(inputs[0].shape))
        self.cached.append(torch.is_autocast_cache_enabled())
        assert list(part.parameters()) and part.training
        for _ in range(2):
            part(inputs[0])
        return part


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    made = Recorder()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", made)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    yield made


def test_a_size_is_recorded_when_it_comes_again(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "_MOST", 2)
    module = nn.Conv2d(1, 1, 3)
    graphs = Graphs(module)
    for side in (5, 6, 5, 5, 7, 6, 7, 7, 6):
        x = torch.randn(1, 1, side, side)
        with graphs:
            assert torch.equal(module(x), nn.functional.conv2d(x, module.weight, module.bias))
    assert recorder.sizes == [(1, 1, 5, 5), (1, 1, 6, 6)]  # two at most


def test_outside_of_a_step_the_module_is_its_own(recorder: Recorder) -> None:
    """A copy, an export or an evaluation between steps must not meet a graph."""
    module = nn.Conv2d(1, 1, 3)
    names, graphs = set(vars(module)), Graphs(module)
    with pytest.raises(ZeroDivisionError), graphs:
        module(torch.zeros(1, 1, 4, 4))
        assert "forward" in vars(module)
        raise ZeroDivisionError
    assert set(vars(module)) == names


def test_recording_leaves_statistics_and_the_cache_of_autocast_as_they_are(recorder: Recorder) -> None:
    module, plain = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
    graphs, x = Graphs(module), torch.randn(2, 2, 4, 4)
    for _ in range(3):
        with graphs, torch.autocast("cpu", torch.bfloat16):
            module(x)
            assert torch.is_autocast_cache_enabled()
        plain(x)
    assert len(recorder.sizes) == 1 and recorder.cached == [False]
    for (name, a), (_, b) in zip(module.named_buffers(), plain.named_buffers(), strict=True):
        assert torch.equal(a, b), name


def test_what_cannot_be_recorded_is_a_message(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    module, x = nn.Conv2d(1, 1, 3), torch.zeros(1, 1, 4, 4)
    with Graphs(module, "MODEL.CUDA_GRAPHS"):
        module(x)
        words = r"^MODEL\.CUDA_GRAPHS: the trunk and the pyramid cannot be recorded: operation not permitted; set it to"
        with pytest.raises(UserError, match=words):
            module(x)


def test_a_size_for_which_there_is_no_memory_is_not_recorded(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, capture_error_mode: str, **__: Any) -> None:
        assert capture_error_mode == "thread_local"  # the thread that pins memory goes on meanwhile
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    module, x = nn.Conv2d(1, 1, 3), torch.randn(1, 1, 4, 4)
    with Graphs(module, "MODEL.CUDA_GRAPHS"):
        for _ in range(3):
            assert torch.equal(module(x), nn.functional.conv2d(x, module.weight, module.bias))
    why = "because the GPU has too little free memory: CUDA out of memory"
    assert caplog.messages == [f"MODEL.CUDA_GRAPHS: images of (1, 1, 4, 4) are not recorded, {why}"]


def test_only_a_training_on_a_gpu_has_graphs() -> None:
    model = nn.Module()
    model.backbone = nn.Linear(1, 1)
    assert isinstance(graphs_of_backbone(model, RunOptions(device="cuda", cuda_graphs=True)), Graphs)
    assert not isinstance(graphs_of_backbone(model, RunOptions(device="cpu", cuda_graphs=True)), Graphs)
    assert not isinstance(graphs_of_backbone(model, RunOptions(device="cuda")), Graphs)
    with pytest.raises(
        UserError, match=r"^MODEL\.CUDA_GRAPHS: expected a model with a `backbone`, found Linear; set it"
    ):
        graphs_of_backbone(nn.Linear(1, 1), RunOptions(device="cuda", cuda_graphs=True))


@pytest.mark.parametrize(
    ("keys", "flags", "words"),
    [
        (["MODEL.COMPILE", True], [], "does not go together with MODEL.COMPILE True; set one of them to its default"),
        (["SOLVER.ACCUMULATE_STEPS", 2], [], "does not go together with SOLVER.ACCUMULATE_STEPS 2; set one of them"),
        ([], ["--num-gpus", "2"], "needs a single process, found 2; set it to False"),
    ],
)
def test_options_that_do_not_go_together(keys: list[Any], flags: list[str], words: str) -> None:
    """They are refused before anything is made; a CPU, on which graphs have no effect, takes them all."""
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.CUDA_GRAPHS", True, "DATASETS.TRAIN", ("coco_2017_train",), *keys])
    args = default_argument_parser().parse_args(flags)
    with pytest.raises(UserError, match=re.escape(f"MODEL.CUDA_GRAPHS {words}")):
        validate(cfg, args)
    cfg.MODEL.DEVICE = "cpu"
    validate(cfg, args)


def test_a_training_runs_its_backbone_in_the_context(tiny_cfg: MakeCfg, tmp_path: Path, recorder: Recorder) -> None:
    keys: dict[str, Any] = {"SEED": 1, "SOLVER.MAX_ITER": 3, "DATASETS.TEST": [], "MODEL.WEIGHTS": ""}
    keys |= {"INPUT.MAX_SIZE_TRAIN": 96, "DATALOADER.ASPECT_RATIO_GROUPING": False}  # of one shape
    losses = []
    for on in (False, True):
        cfg = tiny_cfg(keys | {"OUTPUT_DIR": str(tmp_path / f"graphs_{on}")})
        register_custom(cfg.DATASETS.CUSTOM)
        (tmp_path / f"graphs_{on}").mkdir()
        trainer = Trainer(cfg)
        if on:
            trainer._gradients.graphs = Graphs(trainer.model.backbone)
        trainer.resume_or_load(False)
        trainer.train()
        losses.append([x for k, v in trainer.storage.state_dict().items() if "loss" in k for x in v])
    assert losses[0] == losses[1] and len(recorder.sizes) == 1
