"""Tests of stopping a training in good order, in this process: during evaluation, and before the first step."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sn2fpn.config import CfgNode
from sn2fpn.data import BatchLoader, register_custom
from sn2fpn.engine import Trainer
from sn2fpn.engine import trainer as trainer_module
from sn2fpn.engine.hooks import Hook, Progress
from sn2fpn.errors import UserError
from sn2fpn.program import Interrupted

MakeCfg = Callable[..., CfgNode]
ReadRows = Callable[[Path], list[dict[str, Any]]]


def _train(
    cfg: CfgNode, resume: bool = False, at: int = -1, do: Callable[[], None] = lambda: None, period: int = 1
) -> Trainer:
    register_custom(cfg.DATASETS.CUSTOM)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True, parents=True)
    trainer = Trainer(cfg)

    class Do(Hook):
        def after_step(self) -> None:
            if self.trainer.iter == at:
                do()

    for hook in trainer.hooks:
        if isinstance(hook, Progress):
            hook._period = period
    trainer.hooks.insert(0, Do())
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def _signal() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _kill_a_worker() -> None:
    worker = multiprocessing.active_children()[0]
    worker.kill()
    worker.join()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("period", "image", "words"),
    [
        (1, 6, r"^Interrupted after iteration 6 by SIGTERM; .*model_0000005.pth was saved"),
        (20, 6, r"^Interrupted after iteration 6 by SIGTERM; .*model_0000005.pth was saved"),
        (20, 10, r"^Interrupted during the last evaluation by SIGTERM; .*model_final.pth is complete"),
    ],
)
def test_an_evaluation_that_was_stopped_is_made_up_for(
    period: int,
    image: int,
    words: str,
    tiny_cfg: MakeCfg,
    lasting_rows: ReadRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {"SEED": 4, "SOLVER.MAX_ITER": 9, "TEST.EVAL_PERIOD": 3, "TEST.BEST_METRIC": "bbox/AP50"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    straight = _train(tiny_cfg(keys | {"OUTPUT_DIR": str(whole)}), period=period)
    seen: list[int] = []
    batches_of = BatchLoader.__iter__

    def stop_at_the_image(loader: BatchLoader) -> Iterator[list[dict[str, Any]]]:
        for batch in batches_of(loader):
            if len(batch) == 1:  # an image of an evaluation
                seen.append(batch[0]["image_id"])
                if len(seen) == image:  # the second one of an evaluation of four
                    _signal()
            yield batch

    monkeypatch.setattr(BatchLoader, "__iter__", stop_at_the_image)
    cfg = tiny_cfg(keys | {"OUTPUT_DIR": str(cut)})
    with pytest.raises(Interrupted, match=words):
        _train(cfg, period=period)
    assert len(seen) == image
    assert [row["iteration"] for row in lasting_rows(cut) if "bbox/AP50" in row] == [2, 5][: image // 4]
    resumed = _train(cfg, resume=True, period=period)
    assert lasting_rows(cut) == lasting_rows(whole)
    assert [row["iteration"] for row in lasting_rows(cut) if "bbox/AP50" in row] == [2, 5, 8]
    a, b = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    histories = [json.loads((folder / "best_metric.json").read_text()) for folder in (whole, cut)]
    assert histories[0] == histories[1]


def test_a_dead_worker_ends_the_run_after_saving(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"DATALOADER.NUM_WORKERS": 2, "DATASETS.TEST": []})
    words = (
        r"^worker . of 2 of the data loader .* SIGKILL.*memory.*ended after iteration 3; .*model_0000002.pth was saved"
    )
    with pytest.raises(UserError, match=words):
        _train(cfg, at=2, do=_kill_a_worker)
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000002.pth"


@pytest.mark.parametrize("iteration", [0, 2])
def test_a_broken_image_ends_the_run_after_saving(
    iteration: int, tiny_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_cfg({"DATALOADER.NUM_WORKERS": 0, "DATASETS.TEST": []})

    def refuse(file_name: str, _: str) -> None:
        raise UserError(f"{file_name}: image file does not exist")

    def break_images() -> None:
        monkeypatch.setattr("sn2fpn.data.mapper.decode_image", refuse)

    if iteration == 0:
        break_images()
    end = f"after iteration {iteration + 1}; .*model_{iteration:07d}.pth was saved. Add --resume"
    words = "before the first step; there was nothing to save" if iteration == 0 else end
    with pytest.raises(UserError, match=rf"^/.*image file does not exist\. The run has ended {words}"):
        _train(cfg, at=iteration, do=break_images)
    if iteration:
        assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == f"model_{iteration:07d}.pth"


def test_a_loader_that_ends_ends_the_run_after_saving(tiny_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain loader of torch has the batches of one epoch."""
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 9, "DATASETS.TEST": []})
    real = trainer_module.prefetched
    monkeypatch.setattr(trainer_module, "prefetched", lambda *args: itertools.islice(real(*args), 3))
    with pytest.raises(UserError, match=r"has no more batches.*\. The run has ended after iteration 3; .*0000002"):
        _train(cfg)
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_0000002.pth"


def test_a_signal_in_the_last_step_lets_the_run_finish(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 2, "DATASETS.TEST": []})
    _train(cfg, at=1, do=_signal)
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_final.pth"


def test_a_signal_during_the_last_evaluation_keeps_the_final_model(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"SOLVER.MAX_ITER": 2})
    with pytest.raises(Interrupted, match=r"during the last evaluation by SIGTERM; .*model_final.pth is complete"):
        _train(cfg, at=1, do=_signal)
    assert _train(cfg, resume=True).results["tiny_val"]["bbox"]


def test_a_signal_before_the_first_step_has_nothing_to_save(tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"DATASETS.TEST": []})
    register_custom(cfg.DATASETS.CUSTOM)
    Path(cfg.OUTPUT_DIR).mkdir(parents=True)
    trainer = Trainer(cfg)
    trainer.hooks[0].before_train = _signal
    with pytest.raises(Interrupted, match=r"^Interrupted before the first step by SIGTERM; there was nothing to save"):
        trainer.train()
    assert not list(Path(cfg.OUTPUT_DIR).glob("*.pth"))
