"""Jobs of submitit: their parameters on Slurm, queueing them again, and a few at a time on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from sn2fpn.errors import UserError
from sn2fpn.study.folder import State
from sn2fpn.study.run import executor as executor_module
from sn2fpn.study.run import job as job_module
from sn2fpn.study.run.executor import Local, Slurm, minutes
from sn2fpn.study.run.job import CellJob


def _job(folder: Path) -> CellJob:
    return CellJob(folder / "study.yaml", "a", 1, folder)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `sbatch`, `srun` and `sacct` that imitate a cluster on which every job is running."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "sbatch": f'cp "$1" {tmp_path}/submitted.sh; echo Submitted batch job 77',
        "srun": "",
        "sacct": 'echo "JobID|State|NodeList"; echo "77_0|RUNNING|n1"; echo "77_1|PENDING|"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder
    submitit.SlurmJob.watcher.clear()


def test_slurm_gets_the_options(fake_slurm: Path, tmp_path: Path) -> None:
    options = {
        "slurm_partition": "gpu",
        "gpus_per_node": 4,
        "cpus_per_task": 20,
        "mem_gb": 96,
        "timeout_min": 90,
        "slurm_array_parallelism": 3,
        "slurm_additional_parameters": {"qos": "high", "mail-type": "END"},
    }
    jobs = Slurm(tmp_path / "jobs", "study-x", **options).submit({"a/seed1": _job(tmp_path), "b/seed1": _job(tmp_path)})
    assert {name: job.job_id for name, job in jobs.items()} == {"a/seed1": "77_0", "b/seed1": "77_1"}
    text = (tmp_path / "submitted.sh").read_text()
    for line in (
        "partition=gpu",
        "gpus-per-node=4",
        "cpus-per-task=20",
        "mem=96GB",
        "time=90",
        "array=0-1%2",
        "job-name=study-x",
        "qos=high",
        "mail-type=END",
        "signal=USR2@90",
    ):
        assert f"#SBATCH --{line}\n" in text
    # a second run waits for the jobs that are queued, and queues only new ones
    (tmp_path / "submitted.sh").unlink()
    again = Slurm(tmp_path / "jobs", "study-x", **options).submit({"b/seed1": _job(tmp_path)})
    assert again["b/seed1"].job_id == "77_1"
    assert not (tmp_path / "submitted.sh").exists()


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--executor slurm"):
        Slurm(tmp_path, "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:30", 91), ("2:00:00", 120), ("1-0", 1440), ("1-12:30", 2190), ("2-00:00:01", 2881)],
)
def test_times_are_slurms(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1h", "1:2:3:4", "-5"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        minutes(text)


@pytest.mark.parametrize("first", [signal.SIGUSR2, signal.SIGTERM])
def test_a_preempted_job_saves_and_is_queued_again(
    first: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requeued: list[Any] = []

    def run_cell(*_: Any) -> State:
        try:
            os.kill(os.getpid(), first)
        except KeyboardInterrupt:  # as the trainer ends after saving
            return State.INTERRUPTED
        return State.FINISHED

    def submitits_handler(number: int, frame: Any) -> None:
        requeued.append(job.checkpoint())

    job = _job(tmp_path)
    cell = SimpleNamespace(name="a/seed1", variant=SimpleNamespace(name="a"), seed=1)
    study = SimpleNamespace(cells=[cell], training_arguments=lambda *_: [])
    monkeypatch.setattr(job_module, "run_cell", run_cell)
    monkeypatch.setattr(job_module, "Study", SimpleNamespace(load=lambda *_, **__: study))
    monkeypatch.setattr(job_module, "_POLL_S", 0.01)
    monkeypatch.setattr(job_module, "_NOTICE_S", 0.2)
    before = signal.signal(signal.SIGUSR2, submitits_handler)
    term = signal.getsignal(signal.SIGTERM)
    try:
        assert job() is State.INTERRUPTED
    finally:
        assert signal.getsignal(signal.SIGUSR2) is submitits_handler
        assert signal.getsignal(signal.SIGTERM) is term
        signal.signal(signal.SIGUSR2, before)
    assert len(requeued) == (first == signal.SIGUSR2)  # SIGTERM alone means that somebody wants the job to end
    if requeued:
        assert isinstance(requeued[0], submitit.helpers.DelayedSubmission)
        assert requeued[0].function == job
        assert submitit.core.utils.DelayedSubmission.load(_dumped(requeued[0], tmp_path)).function == job


def test_a_job_trains_its_cell_although_the_study_has_changed(
    write_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(job_module, "run_cell", lambda study, cell, *_: trained.append(cell.name) or State.FINISHED)
    write_study(SEEDS=[1, 2])
    job = CellJob(tmp_path / "tiny.yaml", "sni", 1, tmp_path)
    write_study(SEEDS=[2, 1], AXES={"pyramid": ["ihp", "fpn", "sni"]})
    assert job() is State.FINISHED and trained == ["sni/seed1"]
    write_study(AXES={"pyramid": ["fpn"]})
    with pytest.raises(UserError, match=r"tiny\.yaml: expected the cell sni/seed1.*found a study without it"):
        job()


def _dumped(submission: Any, folder: Path) -> Path:
    submission.dump(folder / "again.pkl")
    return folder / "again.pkl"


def test_local_jobs_share_the_cores_and_do_not_hear_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    handler = signal.getsignal(signal.SIGINT)

    def environment() -> tuple[str, bool]:
        return os.environ["OMP_NUM_THREADS"], signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    job = Local(tmp_path, parallel=2, processes=2).submit({"x": environment})["x"]
    assert job.result() == ("2", True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 8),
        ({"a/b": "max 100000"}, 8),
        ({"a/b": "300000 100000"}, 3),
        ({"a/b": "max 100000", "a": "250000 100000"}, 2),
        ({"a/b": "50000 100000"}, 1),
        ({"": "9900000 100000"}, 8),
    ],
)
def test_the_quota_of_a_container_limits_the_threads(
    quotas: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/other\n0::/a/b\n")
    for group, text in quotas.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "cpu.max").write_text(f"{text}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(executor_module, "_CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(executor_module, "_OWN_CGROUP", own)
    assert executor_module._cores() == cores


def test_each_local_job_has_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    local = Local(tmp_path, parallel=2, num_gpus=2)
    jobs = local.submit(
        {name: lambda: (__import__("time").sleep(1), os.environ["CUDA_VISIBLE_DEVICES"])[1] for name in "ab"}
    )
    assert [job.result() for job in jobs.values()] == ["4,5", "6,7"]
    with pytest.raises(UserError, match="ask for 6 GPUs, but 4 are visible; --cells-per-gpu lets"):
        Local(tmp_path, parallel=3, num_gpus=2)


@pytest.mark.parametrize("named", ["GPU-8a1e", "0,MIG-2f"])
def test_gpus_without_numbers_cannot_be_shared_out(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    with pytest.raises(UserError, match=f"CUDA_VISIBLE_DEVICES: expected the numbers .* found '{named}'"):
        Local(tmp_path, parallel=1, num_gpus=1)


def test_local_jobs_share_gpus_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    local = Local(tmp_path, parallel=4, num_gpus=1, jobs_per_gpu=2)
    jobs = local.submit(
        {name: lambda: (__import__("time").sleep(1), os.environ["CUDA_VISIBLE_DEVICES"])[1] for name in "abcd"}
    )
    assert [job.result() for job in jobs.values()] == ["4", "5", "4", "5"]
    with pytest.raises(UserError, match="ask for 3 GPUs, but 2 are visible"):
        Local(tmp_path, parallel=5, num_gpus=1, jobs_per_gpu=2)
    with pytest.raises(UserError, match="ask for 3 GPUs, but 2 are visible"):
        Local(tmp_path, parallel=1, num_gpus=3, jobs_per_gpu=2)
