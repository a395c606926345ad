"""Tests of train_net.py as a user runs it: help, mistakes, signals and several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from small_runs import WHOLE_BATCH
from sn2fpn.engine import main
from sn2fpn.engine.processes import launch
from sn2fpn.errors import UserError

_ROOT = Path(__file__).parents[2]
_CONFIG = "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
_ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def _command(flags: list[str], keys: dict[str, Any] | None = None, config: str = _CONFIG) -> list[str]:
    opts = [str(x) for pair in (keys or {}).items() for x in pair]
    return [
        sys.executable,
        str(_ROOT / "train_net.py"),
        "--engine",
        "native",
        "--config-file",
        str(_ROOT / config),
        *flags,
        *opts,
    ]


def _run(command: list[str], cwd: Path = _ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=_ENV, capture_output=True, text=True, timeout=300, check=False)


def _totals(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {d["iteration"]: d["total_loss"] for d in lines if "total_loss" in d}


def test_help_answers_at_once_without_torch() -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = _run([sys.executable, str(_ROOT / "train_net.py"), "--help"])
        times.append(time.perf_counter() - started)
    assert done.returncode == 0
    assert "--config-file" in done.stdout
    assert min(times) < 0.5
    code = "import sys, sn2fpn.engine.arguments; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_training_starts_without_the_libraries_of_charts() -> None:
    code = "import sys, sn2fpn.engine.native; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "keys", "words"),
    [
        ([], {"SOLVER.BASE_LRR": 1}, ["SOLVER.BASE_LRR", "did you mean 'SOLVER.BASE_LR'"]),
        ([], {"MODEL.BACKBONE.NAME": "build_sn2_snii_backbone"}, ["MODEL.BACKBONE.NAME", "build_sn2_sni_backbone"]),
        ([], {"DATASETS.TRAIN": "('shapes_trian',)"}, ["DATASETS.TRAIN: unknown", "did you mean 'shapes_train'"]),
        ([], {"MODEL.ROI_HEADS.NUM_CLASSES": 7}, ["MODEL.ROI_HEADS.NUM_CLASSES", "7", "6"]),
        ([], {"MODEL.WEIGHTS": "nowhere.pth"}, ["MODEL.WEIGHTS", "nowhere.pth"]),
        (["--num-gpus", "3"], {"MODEL.DEVICE": "cuda", "SOLVER.IMS_PER_BATCH": 3}, ["GPU"]),
        (["--num-gpus", "3"], {}, ["SOLVER.IMS_PER_BATCH", "multiple of 3"]),
        (["--eval-only"], {}, ["MODEL.WEIGHTS is empty", "an evaluation needs a checkpoint"]),
        (["--num-machines", "2"], {}, ["--dist-url"]),
        (["--dist-url", "localhost:29500"], {}, ["--dist-url: expected tcp://HOST:PORT, found 'localhost:29500'"]),
        ([], {"TEST.PATIENCE": 3, "TEST.BEST_METRIC": "''"}, ["TEST.PATIENCE", "TEST.BEST_METRIC"]),
        ([], {"MODEL.FPN.OUT_CHANNELS": 0}, ["MODEL.FPN.OUT_CHANNELS: expected a whole number of at least 1, found 0"]),
        ([], {"SEED": "x"}, ["SEED expects a whole number"]),
        ([], {"OUTPUT_DIR": "/dev/null/x"}, ["OUTPUT_DIR", "/dev/null/x"]),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(
    flags: list[str],
    keys: dict[str, Any],
    words: list[str],
    tmp_path: Path,
    tiny_keys: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(_command(flags, tiny_keys | {"OUTPUT_DIR": tmp_path} | keys)[2:]) == 2
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"MODEL\.DEVICE .*expected cuda:0 to cuda:1, the GPUs present; found 'cuda:7'"):
        launch(print, 1, device="cuda:7")


def test_missing_config_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_command([], config="configs/faster_rcnn_R50_snii.yaml")[2:]) == 2
    assert "did you mean" in (said := capsys.readouterr().err) and "faster_rcnn_R50_sni.yaml" in said
    done = _run([sys.executable, "train_net.py"])
    assert done.returncode == 2
    assert "--config-file" in done.stderr


def test_a_config_without_its_ending_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quick/faster_rcnn_R18_sni_shapes", "SEED", "1"]) == 2
    assert capsys.readouterr().err == (
        "error: quick/faster_rcnn_R18_sni_shapes: expected a configuration, whose name ends in .yaml, .yml or .py; "
        "did you mean 'quick/faster_rcnn_R18_sni_shapes.yaml'?\n"
    )
    assert main(["SEED", "1"]) == 2 and "--config-file is missing" in capsys.readouterr().err


def test_debug_raises_the_error() -> None:
    with pytest.raises(UserError, match="SEEED"):
        main(_command(["--debug"], {"SEEED": 1})[2:])


def _start_and_wait_for_checkpoint(keys: dict[str, Any], out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        _command([], keys), cwd=_ROOT, env=_ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 200
    while not (out / "last_checkpoint").is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes(how: signal.Signals, tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    keys = tiny_keys | {
        "OUTPUT_DIR": tmp_path,
        "SOLVER.MAX_ITER": 100000,
        "SOLVER.CHECKPOINT_PERIOD": 3,
        "DATASETS.TEST": "()",
    }
    process = _start_and_wait_for_checkpoint(keys, tmp_path)
    process.send_signal(how)
    said = process.communicate(timeout=60)[0]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in said
        assert "Traceback" not in said
    at = int((tmp_path / "last_checkpoint").read_text().removeprefix("model_").removesuffix(".pth"))
    assert not list(tmp_path.glob(".*.part")) or how == signal.SIGKILL
    done = _run(_command(["--resume"], keys | {"SOLVER.MAX_ITER": at + 4}))
    assert done.returncode == 0, done.stdout
    assert f"Resuming at iteration {at + 1}" in done.stdout
    assert (tmp_path / "model_final.pth").is_file()


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    keys = tiny_keys | WHOLE_BATCH
    spawned, torchrun, single = tmp_path / "spawned", tmp_path / "torchrun", tmp_path / "single"
    for done in (
        _run(_command([], keys | {"OUTPUT_DIR": single})),
        _run(_command(["--num-gpus", "2"], keys | {"OUTPUT_DIR": spawned})),
        _run(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                "2",
                "--standalone",
                *_command([], keys | {"OUTPUT_DIR": torchrun})[1:],
            ]
        ),
    ):
        assert done.returncode == 0, done.stdout + done.stderr
    one = _totals(single)
    assert set(one) == {0, 3}
    assert _totals(spawned) == pytest.approx(one, rel=1e-4)
    assert _totals(torchrun) == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
def test_processes_whose_images_differ_in_kind_stay_together(tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    # the accuracy exists on one process only, which has foreground; the processes must not exchange it
    annotations = Path(tiny_keys["DATASETS.CUSTOM"][0]["JSON"])
    content = json.loads(annotations.read_text())
    content["images"] = content["images"][:2]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == content["images"][0]["id"]]
    half = tmp_path / "half.json"
    half.write_text(json.dumps(content))
    custom = [tiny_keys["DATASETS.CUSTOM"][0] | {"JSON": str(half), "NAME": "half_empty"}]
    done = _run(
        _command(
            ["--num-gpus", "2"],
            tiny_keys
            | {
                "OUTPUT_DIR": tmp_path / "out",
                "DATASETS.CUSTOM": custom,
                "DATASETS.TRAIN": "('half_empty',)",
                "DATASETS.TEST": "()",
                "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
                "SOLVER.MAX_ITER": 3,
                "DATALOADER.ASPECT_RATIO_GROUPING": False,
            },
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_evaluation_with_two_processes_equals_one(tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    keys = tiny_keys | {"SOLVER.MAX_ITER": 30, "OUTPUT_DIR": tmp_path}
    assert _run(_command([], keys)).returncode == 0
    results = []
    for count in ("1", "2"):
        out = tmp_path / count
        weights = {"MODEL.WEIGHTS": tmp_path / "model_final.pth", "OUTPUT_DIR": out}
        done = _run(_command(["--eval-only", "--num-gpus", count], keys | weights))
        assert done.returncode == 0, done.stdout + done.stderr
        results.append(json.loads((out / "inference/tiny_val/results.json").read_text()))
    assert results[0] == results[1]


@pytest.mark.slow
def test_two_processes_save_the_best_model_and_stop_together(tmp_path: Path, tiny_keys: dict[str, Any]) -> None:
    best = {"TEST.VAL_LOSS": True, "TEST.BEST_METRIC": "val/total_loss", "TEST.EVAL_PERIOD": 1, "TEST.PATIENCE": 1}
    rising = {"SOLVER.BASE_LR": 1e-9, "SOLVER.MAX_ITER": 40, "OUTPUT_DIR": tmp_path, "SEED": 1}
    done = _run(_command(["--num-gpus", "2"], tiny_keys | best | rising))
    assert done.returncode == 0, done.stdout + done.stderr
    history = json.loads((tmp_path / "best_metric.json").read_text())["history"]
    saved = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert saved["val/total_loss"] == min(value for _, value in history)
    assert len(saved["run"]["random_states"]) == 2
    assert (tmp_path / "model_final.pth").is_file()
