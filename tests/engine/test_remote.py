"""Tests of the services that metrics are sent to, with stand-ins for their libraries and, where installed, with these.

The stand-ins have the documented calls only, and can fail and be slow.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sn2fpn.config import CfgNode
from sn2fpn.data import register_custom
from sn2fpn.engine import Trainer, prepare, remote
from sn2fpn.engine.arguments import default_argument_parser
from sn2fpn.engine.remote import Remote, check_installed
from sn2fpn.errors import ArgumentError, UserError

MakeCfg = Callable[..., CfgNode]
_CONFIG = str(Path(__file__).parents[2] / "configs/quick/faster_rcnn_R18_sni_shapes.yaml")


class _WandB(ModuleType):
    """Stands for `wandb`: it keeps what is sent, by the name of the run."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, list[dict[str, float]]] = {}
        self.ended: list[int] = []
        self.begun: dict[str, Any] = {}
        self.fails: Callable[[str], None] = lambda call: None

    Settings = SimpleNamespace

    def init(self, *, id: str | None, **begun: Any) -> Any:
        self.fails("init")
        self.begun, identity = begun, id or f"run{len(self.runs)}"
        rows = self.runs.setdefault(identity, [])

        def log(row: dict[str, float]) -> None:
            self.fails("log")
            rows.append(row)

        return SimpleNamespace(
            id=identity,
            log=log,
            define_metric=lambda *_, **__: None,
            finish=lambda exit_code: self.ended.append(exit_code),
        )


class _MLflow(ModuleType):
    """Stands for `mlflow` in the same way."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.runs: dict[str, list[Any]] = {}
        self.params: dict[str, str] = {}
        self.ended: list[str] = []
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: (key, value, step), Param=lambda key, value: (key, value)
        )
        self.MlflowClient = lambda: self

    def get_experiment_by_name(self, name: str) -> None:
        assert name == "sn2fpn"

    def create_experiment(self, name: str) -> str:
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        identity = f"{experiment}-{run_name}-{len(self.runs)}"
        self.runs[identity] = []
        return SimpleNamespace(info=SimpleNamespace(run_id=identity))

    def update_run(self, identity: str, status: str) -> None:
        assert identity in self.runs and status == "RUNNING"

    def log_batch(self, identity: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        self.params |= dict(params)
        self.runs[identity] += metrics

    def set_terminated(self, identity: str, status: str) -> None:
        self.ended.append(status)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> _WandB:
    module = _WandB()
    monkeypatch.setitem(sys.modules, "wandb", module)
    module.__spec__ = SimpleNamespace(origin="wandb.py")
    return module


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> _MLflow:
    module = _MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    module.__spec__ = SimpleNamespace(origin="mlflow.py")
    return module


def _train(cfg: CfgNode, iterations: int, resume: bool) -> None:
    register_custom(cfg.DATASETS.CUSTOM)
    out = Path(cfg.OUTPUT_DIR)
    out.mkdir(exist_ok=True)
    cfg.SOLVER.MAX_ITER = iterations
    (out / "config.yaml").write_text(cfg.dump())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()


def test_both_services_get_the_rows_of_the_run_and_a_resumed_run_continues_theirs(
    wandb: _WandB, mlflow: _MLflow, tiny_cfg: MakeCfg, tmp_path: Path
) -> None:
    cfg = tiny_cfg({"LOGGING.WANDB": True, "LOGGING.MLFLOW": True})
    _train(cfg, 2, resume=False)
    _train(cfg, 3, resume=True)
    out = tmp_path / "out"
    rows = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
    (name, sent), (run, points) = *wandb.runs.items(), *mlflow.runs.items()
    assert (out / "wandb_run.txt").read_text().strip() == name
    assert (out / "mlflow_run.txt").read_text().strip() == run
    for row in rows:
        together: dict[str, float] = {}
        for part in sent:
            together |= part if part["iteration"] == row["iteration"] else {}
        assert together == row
        assert {"iteration": row["iteration"]} | {k: v for k, v, step in points if step == row["iteration"]} == row
    assert "bbox/AP" in rows[-1]
    assert wandb.ended == [0, 0] and mlflow.ended == ["FINISHED", "FINISHED"]
    assert wandb.begun["name"] == "out" and wandb.begun["dir"] == str(out)
    assert wandb.begun["config"]["SOLVER"]["BASE_LR"] == 0.02 and mlflow.params["SOLVER.BASE_LR"] == "0.02"


def test_a_run_that_fails_is_marked(wandb: _WandB, mlflow: _MLflow, tiny_cfg: MakeCfg) -> None:
    cfg = tiny_cfg({"LOGGING.WANDB": True, "LOGGING.MLFLOW": True, "SOLVER.BASE_LR": 1e30, "SOLVER.MAX_ITER": 4})
    with pytest.raises(UserError, match="diverged"):
        _train(cfg, 4, resume=False)
    assert wandb.ended == [1] and mlflow.ended == ["KILLED"]


@pytest.mark.parametrize("call", ["init", "log"])
def test_a_failing_service_is_one_warning(
    call: str, wandb: _WandB, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fail(now: str) -> None:
        calls.append(now)
        if now == call and calls.count(now) < 3:
            raise ConnectionError("no route to the host")

    wandb.fails = fail
    with caplog.at_level(logging.INFO, "sn2fpn"):
        service = Remote("wandb", tmp_path, resumed=False)
        for iteration in range(4):
            service.write(iteration, {"loss": 1.0})
        service.close(complete=True)
    (record,) = caplog.records
    assert record.getMessage() == (
        "Metrics are not sent to Weights & Biases: ConnectionError: no route to the host. The training is not affected"
    )
    # a run that cannot be begun is left out, and after an outage the metrics come again
    assert wandb.runs == ({} if call == "init" else {"run0": [{"iteration": n, "loss": 1.0} for n in (2, 3)]})


def test_a_library_that_cannot_be_imported_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with caplog.at_level(logging.INFO, "sn2fpn"):
        service = Remote("mlflow", tmp_path, resumed=False)
        service.write(0, {"loss": 1.0})
        service.close(complete=True)
    assert len(caplog.records) == 1 and "not sent to MLflow: ModuleNotFoundError" in caplog.text


def test_a_service_that_hangs_delays_nothing(
    wandb: _WandB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote, "_LAST_WAIT_S", 2.0)
    monkeypatch.setattr(remote, "_WAITING", 5)
    answers = threading.Event()
    wandb.fails = lambda call: answers.wait(60) and None
    started = time.monotonic()
    with caplog.at_level(logging.INFO, "sn2fpn"):
        service = Remote("wandb", tmp_path, resumed=False)
        for iteration in range(8):
            service.write(iteration, {"loss": 1.0})
        service.close(complete=True)
    assert 1.9 < time.monotonic() - started < 3.9
    assert len(caplog.records) == 1 and "more slowly than they come" in caplog.text
    answers.set()


def test_a_missing_library_is_one_sentence_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / "wandb/__init__.py").is_file()])
    (tmp_path / "wandb").mkdir()  # as the library itself leaves it
    importlib.invalidate_caches()
    words = "Weights & Biases needs the package wandb; run: pip install 'sn2fpn[wandb]'"
    with pytest.raises(ArgumentError, match=f"^service: {words.replace('[', '.').replace(']', '.')}"):
        check_installed("wandb")
    args = ["--engine", "native", "--config-file", _CONFIG, "LOGGING.WANDB", "True"]
    with pytest.raises(UserError) as e:
        prepare(default_argument_parser().parse_args(args))
    assert str(e.value) == f"LOGGING.WANDB: {words}"
    prepare(default_argument_parser().parse_args(["--eval-only", *args, "MODEL.WEIGHTS", "x.pth"]))  # nothing is sent


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_real_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for resumed in (False, True):
        service = Remote("wandb", tmp_path, resumed)
        service.write(3, {"bbox/AP": 1.5, "total_loss": float("nan")})
        service.close(complete=True)
        assert not service._warned
    name = (tmp_path / "wandb_run.txt").read_text().strip()
    assert len(list(tmp_path.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))) >= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_the_real_mlflow_with_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr(remote, "_LAST_WAIT_S", 120.0)  # it makes its tables first
    (tmp_path / "config.yaml").write_text("SOLVER: {BASE_LR: 0.02}\n")
    for resumed, iteration in ((False, 3), (True, 7)):
        service = Remote("mlflow", tmp_path, resumed)
        service.write(iteration, {"coco_2017_val[:16]/bbox/AP": 1.5 + iteration})
        service.close(complete=True)
        assert not service._warned
    import mlflow

    client, name = mlflow.MlflowClient(), (tmp_path / "mlflow_run.txt").read_text().strip()
    points = client.get_metric_history(name, "coco_2017_val__16_/bbox/AP")
    assert [(point.step, point.value) for point in points] == [(3, 4.5), (7, 8.5)]
    run = client.get_run(name)
    assert run.info.status == "FINISHED" and run.data.params == {"SOLVER.BASE_LR": "0.02"}
