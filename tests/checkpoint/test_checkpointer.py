"""Test that saving is atomic and plain, resuming restores everything, and loading reports what matched."""

from __future__ import annotations

import errno
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sn2fpn.checkpoint import Checkpointer, atomic_save
from sn2fpn.checkpoint.compact import compact_names
from sn2fpn.checkpoint.last import good_checkpoint
from sn2fpn.errors import UserError


class _Detector(nn.Module):
    """A small model with the names of a detector."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "bottom_up": nn.ModuleDict(
                    {
                        "stem": nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}),
                        "res2": nn.Sequential(nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 3)})),
                    }
                )
            }
        )
        self.roi_heads = nn.ModuleDict(
            {
                "box_predictor": nn.ModuleDict(
                    {"cls_score": nn.Linear(5, classes + 1), "bbox_pred": nn.Linear(5, 4 * classes)}
                )
            }
        )


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        sum((p * (step + 1.5)).square().sum() for p in model.parameters()).backward()
        optimizer.step()


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


# ------------------------------------------------------------------ saving and resuming


def test_resume_continues_as_if_never_stopped(tmp_path: Path) -> None:
    whole = _Detector()
    optimizer = _sgd(whole)
    _train(whole, optimizer, 3)
    checkpointer = Checkpointer(whole, tmp_path, optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000002", iteration=2, random=random.getstate(), best=np.float32(0.5))
    _train(whole, optimizer, 2)

    part = _Detector()
    optimizer = _sgd(part)
    rest = Checkpointer(part, tmp_path, optimizer=optimizer).resume_or_load("", resume=True)
    assert rest == {"iteration": 2, "random": random.getstate(), "best": 0.5}
    _train(part, optimizer, 2)
    assert _equal(whole, part)


def test_files_are_plain_and_in_detectron2s_layout(tmp_path: Path) -> None:
    model = _Detector()
    Checkpointer(model, tmp_path, optimizer=_sgd(model)).save("model_final", iteration=9)
    data = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(data) == {"model", "trainer", "iteration"}
    assert set(data["trainer"]) == {"iteration", "_trainer"}
    assert set(data["trainer"]["_trainer"]) == {"iteration", "optimizer", "parameter_names"}
    assert data["model"].keys() == model.state_dict().keys()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    with pytest.raises(TypeError, match=r"Path at rest\[1\]\.file"):
        Checkpointer(model, tmp_path).save("x", rest=[0, {"file": tmp_path}])


def test_without_resume_only_weights_are_loaded(tmp_path: Path) -> None:
    trained = _Detector()
    optimizer = _sgd(trained)
    _train(trained, optimizer, 1)
    Checkpointer(trained, tmp_path, optimizer=optimizer).save("model_final", iteration=9)
    fresh = _Detector()
    optimizer = _sgd(fresh)
    checkpointer = Checkpointer(fresh, tmp_path / "other", optimizer=optimizer)
    assert checkpointer.resume_or_load(tmp_path / "model_final.pth", resume=True) == {}
    assert _equal(trained, fresh) and not optimizer.state
    assert checkpointer.report.complete


def test_wrapped_models_have_bare_names(tmp_path: Path) -> None:
    model = _Detector()
    Checkpointer(nn.DataParallel(model), tmp_path).save("a")
    assert torch.load(tmp_path / "a.pth", weights_only=True)["model"].keys() == model.state_dict().keys()


def test_the_best_is_not_what_resume_finds(tmp_path: Path) -> None:
    checkpointer = Checkpointer(_Detector(), tmp_path)
    checkpointer.save("model_0000001")
    checkpointer.save("model_best", tag_last=False)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")


def test_old_periodic_files_of_the_run_are_deleted_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "model_0000005.pth").write_bytes(b"a file of the user")
    checkpointer = Checkpointer(_Detector(), tmp_path)
    for name in ("model_best", "model_final", *(f"model_{i:07d}" for i in (9, 19, 29))):
        checkpointer.save(name, iteration=int(name[-2:]) if name[-2:].isdigit() else 0)
    checkpointer.delete_old(0)
    checkpointer.delete_old(None)
    assert len(list(tmp_path.glob("*.pth"))) == 6
    checkpointer = Checkpointer(_Detector(), tmp_path)  # a resumed run knows the files of the run before it
    assert checkpointer.resume_or_load("")["iteration"] == 29
    checkpointer.save("model_0000039", iteration=39)
    checkpointer.delete_old(2)
    assert sorted(p.stem for p in tmp_path.glob("*.pth")) == [
        "model_0000005",
        "model_0000029",
        "model_0000039",
        "model_best",
        "model_final",
    ]
    checkpointer.save("model_0000029", iteration=29)
    checkpointer.save("model_0000040", iteration=40, tag_last=False)
    checkpointer.delete_old(1)
    assert (tmp_path / "model_0000029.pth").exists()  # It is the last checkpoint, which is resumed.


@pytest.mark.parametrize("listed", [["../precious.txt", "precious.txt", 5, None], 5, {"a": 1}])
def test_a_checkpoint_of_somebody_else_deletes_nothing(listed: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for folder in (tmp_path, out):
        (folder / "precious.txt").write_text("a file of the user")
    names = [str(tmp_path / "precious.txt"), *listed] if isinstance(listed, list) else listed
    model = _Detector()
    atomic_save({"model": model.state_dict(), "iteration": 9, "periodic_checkpoints": names}, out / "model_0000009.pth")
    checkpointer = Checkpointer(model, out)
    assert checkpointer.resume_or_load("") == {"iteration": 9}
    for iteration in (19, 29):
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        checkpointer.delete_old(1)
    assert (tmp_path / "precious.txt").exists() and (out / "precious.txt").exists()


@pytest.mark.parametrize("failure", ["torch.save", "fsync"])
def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    file = tmp_path / "model.pth"
    atomic_save({"a": torch.ones(3)}, file)
    before = file.read_bytes()

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(data: object, stream) -> None:
        stream.write(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    if failure == "fsync":
        monkeypatch.setattr("os.fsync", full)
    else:
        monkeypatch.setattr("torch.save", half)
    cause = "no space left on device" if failure == "fsync" else "PytorchStreamWriter"
    with pytest.raises(UserError, match=rf"cannot write {file}: {cause}.*intact"):
        atomic_save({"a": torch.zeros(9)}, file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


def test_resuming_another_model_is_an_error(tmp_path: Path) -> None:
    Checkpointer(_Detector(3), tmp_path).save("model_0000001", iteration=1)
    with pytest.raises(UserError, match=r"--resume.*another model") as error:
        Checkpointer(_Detector(5), tmp_path).resume_or_load("")
    assert "cls_score.weight: (4, 5) in the file, (6, 5) in the model (3 classes there, 5 here)" in str(error.value)


def test_an_optimizer_of_another_shape_is_an_error(tmp_path: Path) -> None:
    model = _Detector()
    optimizer = _sgd(model)
    _train(model, optimizer, 1)
    # In this layout the optimizer's state refers to parameters by position.
    file = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 1}
    torch.save(file, tmp_path / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    backwards = torch.optim.SGD(list(model.parameters())[::-1], lr=0.1, momentum=0.9)
    with pytest.raises(UserError, match="the state of the optimizer does not fit"):
        Checkpointer(model, tmp_path, optimizer=backwards).resume_or_load("")


def test_momentum_goes_by_name(tmp_path: Path) -> None:
    model = _Detector()
    optimizer = _sgd(model)
    _train(model, optimizer, 1)
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000001", iteration=1)
    backwards = torch.optim.SGD(list(model.parameters())[::-1], lr=0.1, momentum=0.9)
    Checkpointer(model, tmp_path, optimizer=backwards).resume_or_load("")
    for param in model.parameters():
        assert torch.equal(backwards.state[param]["momentum_buffer"], optimizer.state[param]["momentum_buffer"])


@pytest.mark.parametrize("backwards", [False, True], ids=["same", "backwards"])
def test_parameters_in_any_order_and_from_outside_of_the_model_keep_their_momentum(
    backwards: bool, tmp_path: Path
) -> None:
    """The two biases of one shape would take each other's place if positions were those of the model's state."""
    model, scale = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([*model[1].parameters(), *model[0].parameters(), scale], lr=0.1, momentum=0.9)
    for i, param in enumerate(optimizer.param_groups[0]["params"]):
        param.grad = torch.full_like(param, float(i))
    optimizer.step()
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000001", iteration=1)
    params = optimizer.param_groups[0]["params"]
    again = torch.optim.SGD([*params[-2::-1], scale] if backwards else params, lr=0.1, momentum=0.9)
    Checkpointer(model, tmp_path, optimizer=again).resume_or_load("")
    for param in params:
        assert torch.equal(again.state[param]["momentum_buffer"], optimizer.state[param]["momentum_buffer"])


def test_a_group_with_other_parameters_is_an_error(tmp_path: Path) -> None:
    model = _Detector()
    optimizer = _sgd(model)
    _train(model, optimizer, 1)
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000001", iteration=1)
    fewer = torch.optim.SGD(list(model.parameters())[2:], lr=0.1, momentum=0.9)
    with pytest.raises(
        UserError, match=r"optimizer does not fit.*groups have \[10\] tensors in the file and \[8\] here"
    ):
        Checkpointer(model, tmp_path, optimizer=fewer).resume_or_load("")


@pytest.mark.parametrize("kind", ["Adafactor", "LBFGS", "AdamW", "RMSprop"])
def test_optimizers_with_states_of_any_shape_are_resumed(kind: str, tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = getattr(torch.optim, kind)(model.parameters())
    optimizer.step(lambda: _backward(model))
    Checkpointer(model, tmp_path, optimizer=optimizer).save("model_0000001", iteration=1)
    copy = nn.Linear(4, 3)
    again = getattr(torch.optim, kind)(copy.parameters())
    Checkpointer(copy, tmp_path, optimizer=again).resume_or_load("")
    for program in ((model, optimizer), (copy, again)):
        program[1].step(lambda model=program[0]: _backward(model))
    assert _equal(model, copy)


def _backward(model: nn.Module) -> torch.Tensor:
    model.zero_grad()
    loss = sum((p - 1).square().sum() for p in model.parameters())
    loss.backward()
    return loss


def _two_checkpoints(folder: Path) -> Checkpointer:
    """Write the checkpoints of iterations 4 and 9, whose numbers are 4 and 9 too, and an older best one."""
    model = _Detector()
    checkpointer = Checkpointer(model, folder)
    for iteration, name in ((2, "model_best"), (4, "model_0000004"), (9, "model_final")):
        with torch.no_grad():
            model.roi_heads["box_predictor"]["cls_score"].bias.fill_(iteration)
        checkpointer.save(name, iteration=iteration)
    return checkpointer


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(torch.full((4,), 9.0).numpy().tobytes())
    content[at] ^= 1
    file.write_bytes(content)


_DAMAGES = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-200]),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("<html>404</html>"),
    "gone": lambda file: file.unlink(),
    "bit": _flip_a_bit,
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpointer = _two_checkpoints(tmp_path)
    newest = tmp_path / "model_final.pth"
    _DAMAGES[damage](newest)
    before = newest.read_bytes() if newest.exists() else None
    assert checkpointer.resume_or_load("")["iteration"] == 4
    assert checkpointer.model.roi_heads["box_predictor"]["cls_score"].bias[0] == 4
    assert f"continues from {tmp_path / 'model_0000004.pth'}" in caplog.text and str(newest) in caplog.text
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")
    assert (newest.read_bytes() if newest.exists() else None) == before  # Nothing of the user's is deleted.


def test_any_damaged_bit_of_the_archives_own_parts_gives_way_or_changes_nothing(tmp_path: Path) -> None:
    """Python's zipfile answers damages of headers and of the table of contents with errors of many kinds."""
    checkpointer = _two_checkpoints(tmp_path)
    newest = tmp_path / "model_final.pth"
    content, tag = newest.read_bytes(), tmp_path / "last_checkpoint"
    table = content.index(b"PK\x01\x02")
    found = set()
    for at in [*range(0, 80), *range(table, len(content), 3)]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        newest.write_bytes(damaged)
        tag.write_text(newest.name)
        found.add(Path(good_checkpoint(checkpointer.save_dir)).name)
    assert found == {"model_final.pth", "model_0000004.pth"}


@pytest.mark.parametrize("trainer", ["me", {"_trainer": 3, "hooks": [1]}])
def test_a_trainer_of_another_kind_in_a_file_is_left_alone(trainer: Any, tmp_path: Path) -> None:
    model = _Detector()
    torch.save({"model": model.state_dict(), "trainer": trainer, "iteration": 3}, tmp_path / "m.pth")
    assert Checkpointer(model).load(tmp_path / "m.pth", [])["iteration"] == 3


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x00", b"gone.pth", b"a" * 300, None])
def test_any_last_checkpoint_leads_to_the_newest_file(content: bytes | None, tmp_path: Path) -> None:
    checkpointer = _two_checkpoints(tmp_path)
    tag = tmp_path / "last_checkpoint"
    tag.unlink()
    if content is not None:
        tag.write_bytes(content)
    assert checkpointer.resume_or_load("")["iteration"] == 9
    assert tag.read_text() == "model_final.pth"


def test_nothing_whole_is_an_error_and_never_a_new_start(tmp_path: Path) -> None:
    checkpointer = _two_checkpoints(tmp_path)
    for file in tmp_path.glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"--resume .*last_checkpoint.*no whole checkpoint") as error:
        checkpointer.resume_or_load("")
    for name in ("model_best.pth", "model_0000004.pth", "model_final.pth"):
        assert f"{tmp_path / name} is damaged" in str(error.value)


def test_a_changed_bit_in_initial_weights_is_an_error(tmp_path: Path) -> None:
    checkpointer = _two_checkpoints(tmp_path)
    _flip_a_bit(tmp_path / "model_final.pth")
    with pytest.raises(UserError, match=r"model_final.pth is damaged: 1 of its \d+ parts have changed"):
        checkpointer.load(tmp_path / "model_final.pth")


def test_files_without_sums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        checkpointer = _two_checkpoints(tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert checkpointer.resume_or_load("")["iteration"] == 9


# ------------------------------------------------------------------ matching


def _save_model(path: Path, **tensors: torch.Tensor) -> Path:
    torch.save({"model": {k.replace("__", "."): v for k, v in tensors.items()}}, path)
    return path


def test_a_trunk_alone_finds_its_place(tmp_path: Path) -> None:
    source, target = _Detector(), _Detector()
    trunk = {k.removeprefix("backbone.bottom_up."): v for k, v in source.state_dict().items() if "bottom_up" in k}
    torch.save({"model": trunk}, tmp_path / "trunk.pth")
    checkpointer = Checkpointer(target)
    checkpointer.load(tmp_path / "trunk.pth")
    assert checkpointer.report.missing == {k for k in target.state_dict() if k.startswith("roi_heads")}
    assert _equal(source.backbone, target.backbone)


def test_a_name_that_fits_two_places_is_not_guessed(tmp_path: Path) -> None:
    file = _save_model(tmp_path / "w.pth", conv1__bias=torch.ones(4), stem__conv1__weight=torch.ones(4, 3, 3, 3))
    checkpointer = Checkpointer(_Detector())
    checkpointer.load(file)
    assert checkpointer.report.loaded == {"backbone.bottom_up.stem.conv1.weight"}
    assert "fits 2 places" in checkpointer.report.unused["conv1.bias"]


def test_biases_without_a_place_are_refused_unless_they_are_zero(tmp_path: Path) -> None:
    """Trunks without norms had biases once. Without them, a model would compute other numbers."""
    model = _Detector()
    model.backbone.bottom_up.res2[0]["conv1"].bias = None
    state = _Detector().state_dict()
    torch.save({"model": state}, tmp_path / "old.pth")
    with pytest.raises(UserError, match=r"^path: .*old\.pth holds biases for 1 layer .*res2\.0\.conv1\.bias.*RESNETS"):
        Checkpointer(model).load(tmp_path / "old.pth")
    state["backbone.bottom_up.res2.0.conv1.bias"].zero_()
    torch.save({"model": state}, tmp_path / "old.pth")
    Checkpointer(model).load(tmp_path / "old.pth", complete=True)
    state["backbone.bottom_up.res2.0.conv1.bias"].fill_(1)
    torch.save({"model": state}, tmp_path / "old.pth")
    model.backbone.bottom_up.res2[0]["conv1"].norm = nn.BatchNorm2d(4)  # another pyramid's weights to start from
    Checkpointer(model).load(tmp_path / "old.pth")
    model.backbone.bottom_up.res2[0]["conv1"].norm.requires_grad_(False)  # it would never learn the bias
    with pytest.raises(UserError, match="holds biases for 1 layer "):
        Checkpointer(model).load(tmp_path / "old.pth")


def test_a_bias_beside_a_norm_is_not_left_out(tmp_path: Path) -> None:
    """Convolutions of other programs may have both. Without the bias, the statistics of the norm would be wrong."""
    theirs = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1)})
    theirs["conv"].norm = nn.BatchNorm2d(4)
    ours = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 1, bias=False)})
    ours["conv"].norm = nn.BatchNorm2d(4)
    torch.save({"model": theirs.state_dict()}, tmp_path / "both.pth")
    with pytest.raises(UserError, match=r"holds biases for 1 layer without a bias in the model \(conv\.bias\)"):
        Checkpointer(ours).load(tmp_path / "both.pth")


def test_another_class_count_is_reported_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpointer(_Detector(80), tmp_path).save("coco")
    model = _Detector(20)
    before = model.roi_heads.box_predictor.cls_score.weight.clone()
    checkpointer = Checkpointer(model)
    with caplog.at_level(logging.WARNING):
        checkpointer.load(tmp_path / "coco.pth")
    assert torch.equal(model.roi_heads.box_predictor.cls_score.weight, before)
    assert "cls_score.weight: (81, 5) in the file, (21, 5) in the model (80 classes there, 20 here)" in caplog.text
    assert "bbox_pred.bias: (320,) in the file, (80,) in the model (boxes for 80 classes there, 20 here)" in caplog.text
    assert "backbone.*" in caplog.text


def test_nothing_fits(tmp_path: Path) -> None:
    file = _save_model(tmp_path / "w.pth", encoder__weight=torch.ones(4))
    with pytest.raises(UserError, match=r"^path: none of the 1 tensors .*encoder\.weight.*backbone"):
        Checkpointer(_Detector()).load(file)


def test_names_in_few_lines() -> None:
    everything = [f"{a}.{b}.{c}" for a in ("x", "y10", "y9") for b in ("p", "q") for c in ("w", "b")]
    assert compact_names(everything, everything) == ["{x,y9,y10}.*"]
    assert compact_names(["x.p.w", "x.q.w", "y9.p.w", "y9.p.b"], everything) == ["x.{p,q}.w", "y9.p.*"]
    assert compact_names([], everything) == []


# ------------------------------------------------------------------ Detectron2's own training files


def test_resume_from_a_file_of_detectron2s_trainer(tmp_path: Path) -> None:
    """Its optimizer's state is deeper in the file and refers to parameters by their position in its order of names."""
    model = _Detector()
    names = [n for n, _ in model.named_parameters()][::-1]  # This is another order than ours.
    params = dict(model.named_parameters())
    theirs = torch.optim.SGD([params[n] for n in names], lr=0.3, momentum=0.9)
    _train(model, theirs, 2)
    state = model.state_dict()
    ordered = {n: state[n] for n in names} | state
    torch.save(
        {
            "model": ordered,
            "trainer": {
                "iteration": 7,
                "_trainer": {"iteration": 7, "optimizer": theirs.state_dict()},
                "hooks": {"LRScheduler": {"base_lrs": [0.3], "last_epoch": 8}},
            },
            "iteration": 7,
        },
        tmp_path / "model_0000007.pth",
    )
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    copy = _Detector()
    ours = _sgd(copy)
    scheduler = torch.optim.lr_scheduler.StepLR(ours, 100)
    rest = Checkpointer(copy, tmp_path, optimizer=ours, scheduler=scheduler).resume_or_load("")
    assert rest == {"iteration": 7} and scheduler.last_epoch == 8
    assert ours.param_groups[0]["lr"] == 0.3
    for name, param in copy.named_parameters():
        assert torch.equal(ours.state[param]["momentum_buffer"], theirs.state[params[name]]["momentum_buffer"])


@pytest.mark.detectron2
def test_real_training_file_of_detectron2(tmp_path: Path) -> None:
    """Every parameter gets its own momentum from a file of Detectron2's trainer, and Detectron2 loads our file."""
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.engine import SimpleTrainer
    from detectron2.modeling import build_model as build_d2_model
    from detectron2.solver import build_optimizer as build_d2_optimizer

    from sn2fpn.config import get_cfg
    from sn2fpn.engine import build_optimizer
    from sn2fpn.modeling import build_model

    changes = [
        "MODEL.DEVICE",
        "cpu",
        "MODEL.RESNETS.DEPTH",
        18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS",
        64,
        "MODEL.RESNETS.NORM",
        "BN",
        "MODEL.ROI_HEADS.NUM_CLASSES",
        3,
        "SOLVER.WEIGHT_DECAY_BIAS",
        0.0,
    ]
    theirs_cfg = model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml")
    theirs_cfg.merge_from_list(changes)
    cfg = get_cfg()
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_list(changes)

    theirs = build_d2_model(theirs_cfg)
    optimizer = build_d2_optimizer(theirs_cfg, theirs)
    for p in theirs.parameters():
        if p.requires_grad:
            p.grad = torch.rand_like(p)
    optimizer.step()
    trainer = SimpleTrainer(theirs, [], optimizer)
    trainer.iter = 4
    DetectionCheckpointer(theirs, str(tmp_path), trainer=trainer).save("model_0000004", iteration=4)

    ours = build_model(cfg)
    our_optimizer = build_optimizer(cfg, ours)
    checkpointer = Checkpointer(ours, tmp_path, optimizer=our_optimizer)
    assert checkpointer.resume_or_load("")["iteration"] == 4
    params = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert torch.equal(p, params[name]), name
        if p.requires_grad:
            expected = optimizer.state[params[name]]["momentum_buffer"]
            assert torch.equal(our_optimizer.state[p]["momentum_buffer"], expected), name

    for p in ours.parameters():
        p.data.mul_(2)
    checkpointer.save("ours")
    DetectionCheckpointer(theirs).load(str(tmp_path / "ours.pth"))
    assert all(torch.equal(p, params[name]) for name, p in ours.named_parameters())
