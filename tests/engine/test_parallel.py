"""Tests of training in several processes: equal losses for equal batches, divided optimizers, and restarts."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from small_runs import WHOLE_BATCH
from sn2fpn.engine import entry
from sn2fpn.engine.meeting import fresh_part
from sn2fpn.engine.options import RunOptions, world_size
from sn2fpn.engine.parallel import averaging, shard, traffic
from sn2fpn.engine.processes import launch
from sn2fpn.errors import UserError

_ROOT = Path(__file__).parents[2]
_CONFIG = _ROOT / "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
_WHOLE_BATCH = WHOLE_BATCH | {"SOLVER.CHECKPOINT_PERIOD": 2, "SOLVER.OPTIMIZER": "AdamW", "SOLVER.BASE_LR": 0.0001}


def _program(keys: dict[str, Any], flags: tuple[str, ...] = ()) -> list[str]:
    opts = [str(x) for pair in keys.items() for x in pair]
    return [str(_ROOT / "train_net.py"), "--engine", "native", "--config-file", str(_CONFIG), *flags, *opts]


def _train(keys: dict[str, Any], processes: int, *flags: str) -> str:
    """Train, and return the log."""
    done = subprocess.run(
        [sys.executable, *_program(keys, ("--num-gpus", str(processes), *flags))],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_gradients_are_sent_in_half_precision_where_detectron2s_key_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    monkeypatch.setattr("sn2fpn.engine.parallel.comm.get_world_size", lambda: 2)
    try:
        for compressed in (False, True):
            layer = nn.Linear(3, 2)
            options = RunOptions(device="cpu", ddp={"broadcast_buffers": False, "fp16_compression": compressed})
            x = torch.tensor([[1 / 3, 1 / 7, 1 / 9]])
            model = averaging(layer, options)
            model(x).sum().backward()
            assert torch.equal(layer.weight.grad[0], x[0].half().float() if compressed else x[0])
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("parts", [1, 2])
def test_parameters_without_a_gradient_do_not_stop_a_training(
    parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such are those of a level that no head reads."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    monkeypatch.setattr("sn2fpn.engine.parallel.comm.get_world_size", lambda: 2)
    try:
        layer = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
        layer.forward = lambda x: layer["used"](x)
        model = averaging(layer, RunOptions(device="cpu", accumulate_steps=parts))
        for _ in range(3):
            with model.no_sync() if parts > 1 else nullcontext():
                model(torch.ones(1, 3)).sum().backward()
            model(torch.ones(1, 3)).sum().backward() if parts > 1 else None
        assert layer["used"].weight.grad is not None and layer["unused"].weight.grad in (None, 0)
    finally:
        dist.destroy_process_group()


def test_several_processes_need_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UserError, match=r"expected 'cuda' for 2 processes, .* found 'cuda:1'"):
        launch(_mistake, 2, device="cuda:1")


def _mistake() -> None:
    raise UserError("a mistake of the user")


@pytest.mark.slow
def test_processes_show_the_traceback_of_a_mistake_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    """Without the request, the test of a second run in `test_output_folder.py` expects one message alone."""
    with pytest.raises(SystemExit):
        launch(_mistake, 2, device="cpu", debug=True)
    said = capfd.readouterr().err
    assert "a mistake of the user" in said and "Traceback" in said


def _totals(folder: Path) -> dict[int, float]:
    rows = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return {row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row}


def _final(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "model_final.pth", weights_only=True)


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_training(tiny_keys: dict[str, Any], tmp_path: Path) -> None:
    keys = tiny_keys | _WHOLE_BATCH
    one = tmp_path / "1"
    assert "MiB per step" not in _train(keys | {"OUTPUT_DIR": one}, 1)
    for processes in (2, 4):
        plain, divided = tmp_path / f"{processes}", tmp_path / f"{processes}_zero"
        said = _train(keys | {"OUTPUT_DIR": plain}, processes)
        assert said.count(f"Each of {processes} processes sends about") == 1
        _train(keys | {"OUTPUT_DIR": divided, "SOLVER.ZERO": True}, processes)
        assert _totals(plain) == pytest.approx(_totals(one), rel=1e-4)
        # each process updates a part of the weights from the same gradients
        a, b = _final(plain)["model"], _final(divided)["model"]
        assert all(torch.equal(a[name], b[name]) for name in a)
    # a divided state is saved whole, so that any number of processes continues from it, with or without SOLVER.ZERO
    for processes, zero, source in ((1, False, "4_zero"), (2, True, "4_zero"), (2, True, "1")):
        out = tmp_path / f"resumed_{processes}_from_{source}"
        out.mkdir()
        (out / "model_0000001.pth").write_bytes((tmp_path / source / "model_0000001.pth").read_bytes())
        (out / "last_checkpoint").write_text("model_0000001.pth")
        said = _train(keys | {"OUTPUT_DIR": out, "SOLVER.ZERO": zero}, processes, "--resume")
        assert "Resuming at iteration 2" in said and "SOLVER.ZERO: " not in said
        expected, found = _final(one), _final(out)
        for name, value in found["model"].items():
            torch.testing.assert_close(value, expected["model"][name], rtol=1e-3, atol=2e-5)
        states, whole = (file["trainer"]["_trainer"]["optimizer"]["state"] for file in (found, expected))
        assert states.keys() == whole.keys() and all(state["step"] == 4 for state in states.values())
        for i, state in states.items():
            torch.testing.assert_close(state["exp_avg"], whole[i]["exp_avg"], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
def test_torchrun_restarts_from_the_last_checkpoint(tiny_keys: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    changes = {"OUTPUT_DIR": out, "SOLVER.MAX_ITER": 60, "SOLVER.CHECKPOINT_PERIOD": 5, "DATASETS.TEST": "()"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        command = [*torchrun, "--max-restarts", "1", *_program(tiny_keys | changes)]  # there is no --resume
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while "INFO: iter 20/" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(ranks[1]), signal.SIGKILL)
        assert process.wait(500) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = log.read_text()
    resumed = int(said.split("Resuming at iteration ")[1].split()[0])
    assert resumed >= 20 and resumed % 5 == 0 and said.count("Resuming at") == 1
    assert (out / "model_final.pth").is_file() and not list(out.glob("earlier_*"))
    rows = [json.loads(line)["iteration"] for line in (out / "metrics.json").read_text().splitlines()]
    assert rows == sorted(set(rows)) and rows[-1] == 59


def test_a_store_with_the_traces_of_earlier_starts_brings_the_processes_together() -> None:
    """In the second start, the last process reads the token of the first start before there is a new one."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def join(rank: int, start: int) -> str:
        store = dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
        time.sleep(0.3 if start and rank == 0 else 0)
        part = fresh_part(store, rank, 3, timedelta(seconds=60))
        part.set(f"rank{rank}", f"start {start}")
        return " ".join(part.get(f"rank{other}").decode() for other in range(3))

    for start in range(2):
        with ThreadPoolExecutor(3) as threads:
            assert set(threads.map(join, range(3), [start] * 3)) == {" ".join([f"start {start}"] * 3)}


_TWO_MACHINES = """
import os, sys
from pathlib import Path
from sn2fpn import distributed as comm
from sn2fpn.engine.processes import launch
from sn2fpn.program import run_program

def work(out):
    count = os.environ["TORCHELASTIC_RESTART_COUNT"]
    first = comm.call_on_main(lambda: not (out / "started").exists())
    comm.call_on_main((out / "started").touch)
    if first and comm.get_rank() == 1:
        os._exit(7)
    counts = comm.all_gather(count)
    (out / f"rank{comm.get_rank()}").write_text(" ".join(counts))

if __name__ == "__main__":
    sys.exit(run_program(lambda: launch(work, 1, args=(Path(sys.argv[1]),), device="cpu")))
"""


@pytest.mark.slow
def test_machines_that_count_their_own_restarts_meet_again(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(_TWO_MACHINES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    agents = []
    try:
        for _ in range(2):
            command = [*torchrun, str(tmp_path / "work.py"), str(tmp_path)]
            agents.append(subprocess.Popen(command, start_new_session=True))
        assert [agent.wait(500) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGTERM)
    found = {(tmp_path / f"rank{rank}").read_text() for rank in range(2)}
    assert len(found) == 1 and sorted(found.pop().split()) == ["0", "1"]  # only one machine counts the restart


@pytest.mark.parametrize(("flags", "resumes"), [([], True), (["--eval-only"], False)])
def test_torchrun_restarts_an_evaluation_with_the_same_weights(
    flags: list[str], resumes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(entry, "_launch", lambda args: found.append(args.resume))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert entry.main([*flags, str(_CONFIG)]) == 0 and found == [resumes]


def test_the_variables_of_torchrun_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    args = argparse.Namespace(num_gpus=2, num_machines=1)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # as scripts for Slurm set it
    assert world_size(args) == 2
    monkeypatch.setenv("RANK", "0")
    for function in (lambda: world_size(args), lambda: launch(print, 2, device="cpu")):
        with pytest.raises(UserError, match="variable RANK is set, but LOCAL_RANK not; start the program by torchrun"):
            function()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert world_size(args) == 8


def test_one_process_divides_nothing() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert shard(optimizer) is optimizer


def test_the_traffic_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sn2fpn.distributed.get_world_size", lambda: 4)
    model = nn.Linear(1024, 1024, bias=False)  # 4 MiB
    line = traffic(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert line == "Each of 4 processes sends about 6.0 MiB per step (gradients of 4.0 MiB)"
