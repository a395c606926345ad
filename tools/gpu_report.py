"""Test and measure the package on a GPU, and write a one-page report.

    python tools/gpu_report.py                      # at most 20 minutes, without a network
    python tools/gpu_report.py --only tests training
    python tools/gpu_report.py --device cpu --quick # a rehearsal on a machine without a GPU, in two minutes

The steps are the tests that need a GPU, the benchmark against torchvision (and Detectron2 where it is installed) in
three precisions and at three batch sizes, peak memory, the top-down steps of SNI and FPN, and a training on drawn
shapes with the AP50 that it must reach. Each is a program of its own with a time limit, and a step that fails
does not stop the others. The report holds the machine, the versions, and the time and the result of each step. The exit
code is 0 if all steps have succeeded, 1 if one has failed, and 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

from sn2fpn.command_line import CommandLineParser
from sn2fpn.errors import UserError, check_choice
from sn2fpn.program import run_program
from sn2fpn.visualization.curves import read_metrics
from step_report import Step, last_line, run_steps

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "tools"
FASTER = ["--config-file", "configs/faster_rcnn_R50_fpn.yaml"]
SHAPES = "configs/quick/faster_rcnn_R18_sni_shapes.yaml"
AP50_TO_REACH = 80.0  # The same training in float32 on a CPU reaches 89.1, see docs/performance.md.
ONLY = "run only these steps, e.g. tests 'speed, batch 2', and keep the others of an earlier report in the folder"
PRECISIONS = ["float32", "float16", "bfloat16"]
NOTES = (
    "In a table of times, a ratio divides the time of the faster of the other engines by that of the native engine in "
    "the same precision. TF32 is as torch has it by default: on in convolutions and off in matrix products."
)
SPEED_LIMITS_S = {1: 90, 2: 120, 8: 210}  # by batch size


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = CommandLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small images, few rounds and few iterations")
    parser.add_argument(
        "--output-dir", type=Path, default=ROOT / "output/gpu", metavar="DIR", help="default: output/gpu"
    )
    parser.add_argument("--only", nargs="+", metavar="STEP", help=ONLY)
    args = parser.parse_args(argv)
    return run_program(lambda: report(args.device, args.quick, args.output_dir, args.only))


def report(device: str, quick: bool, out: Path, only: Sequence[str] | None = None) -> int:
    """Run all steps or only some, write the report after each of them, and return the exit code.

    Raises:
        UserError: there is no such device or no such step, or an earlier report is about something else.
    """
    chosen = steps(device, quick, out.resolve())
    if only is not None:
        names = [step.name for step in chosen]
        for name in only:
            check_choice("--only", name, names)
        chosen = [step for step in chosen if step.name in only]
    about = {"device": device + (", quick" if quick else ""), **machine(device)}
    return run_steps(chosen, "Report of a GPU", NOTES, about, out.resolve(), keep=only is not None)


def machine(device: str) -> dict[str, str]:
    """Return what the numbers depend on: the GPUs, the driver, the versions and the commit.

    Raises:
        UserError: `device` is a GPU and there is none.
    """
    import torch

    from sn2fpn.engine.versions import environment

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(
            f"--device {device}: there is no GPU that torch {torch.__version__} can use; see whether `nvidia-smi` "
            "lists one, or rehearse the report with --device cpu --quick"
        )
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
    try:
        cards = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        cards = []
    return environment() | {f"card {i} (driver, memory, power)": card for i, card in enumerate(cards)}


# ------------------------------------------------------------------ the steps


def steps(device: str, quick: bool, out: Path) -> list[Step]:
    """Return the steps of the report, whose limits add up to 20 minutes."""
    tests = "gpu and not slow" if quick else "gpu"
    found = [
        Step(
            "tests",
            ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", tests, str(ROOT / "tests/gpu")],
            300,
            read_tests,
            {"SN2FPN_GPU_TESTS_ON": device},
        )
    ]
    for batch, limit_s in list(SPEED_LIMITS_S.items())[: 1 if quick else None]:
        flags = ["--no-memory", *(["--repeats", "1", *FASTER] if quick else [])]
        found.append(_benchmark(f"speed, batch {batch}", device, quick, out, batch, flags, limit_s))
    if not quick:
        found.append(_benchmark("memory, batch 2", device, quick, out, 2, ["--repeats", "1", *FASTER], 180))
    file = out / "top-down_steps.json"
    found.append(Step("top-down steps", _measuring("upsampling", device, quick, file), 60, lambda _: read_steps(file)))
    return [*found, _training(device, quick, out)]


def _benchmark(name: str, device: str, quick: bool, out: Path, batch: int, flags: list[str], limit_s: int) -> Step:
    file = out / f"{name.replace(', ', '_').replace(' ', '_')}.json"
    precisions = ["--precision", *(PRECISIONS[:1] if quick else PRECISIONS)]
    command = [*_measuring("detector", device, quick, file), "--batch", str(batch), *precisions, *flags]
    return Step(name, command, limit_s, lambda _: read_benchmark(file))


def _measuring(part: str, device: str, quick: bool, file: Path) -> list[str]:
    command = [str(TOOLS / "benchmark.py"), part, "--device", device, "--json", str(file)]
    return [*command, "--quick"] if quick else command


def _training(device: str, quick: bool, out: Path) -> Step:
    keys = {"MODEL.DEVICE": device, "SEED": -1, "SOLVER.AMP.ENABLED": True, "OUTPUT_DIR": out / "training"}
    if quick:
        keys |= {"SOLVER.MAX_ITER": 3, "SOLVER.STEPS": "()", "DATASETS.TEST": "('shapes_val[:4]',)"}
    words = [str(x) for pair in keys.items() for x in pair]
    command = [str(ROOT / "train_net.py"), "--engine", "native", "--config-file", SHAPES, *words]
    return Step("training", command, 210, lambda _: read_training(out / "training", 0.0 if quick else AP50_TO_REACH))


def read_tests(said: str) -> tuple[str, str]:
    """Return the last line of pytest and the reasons of skipped tests."""
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    return re.sub(r"^=+ | =+$", "", last_line(said)), "\n".join(f"    {line}" for line in skipped)


def read_benchmark(file: Path) -> tuple[str, str]:
    """Return the range of the ratios and a table from the JSON file of `benchmark.py detector`.

    A ratio divides the time of the faster of the other engines by that of the native engine in the same precision.
    """
    rows = _rows(file)
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    cases: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault((Path(row["config"]).stem, row["mode"], row["precision"]), {})[row["engine"]] = row
    lines, ratios = [], []
    for case, of in cases.items():
        others = [row["seconds"] for engine, row in of.items() if engine != "native"]
        if "native" in of and others:
            ratios.append(min(others) / of["native"]["seconds"])
        times = [f"{of[e]['seconds'] * 1e3:.1f} ms" if e in of else "" for e in engines]
        memory = [f"{of[e]['memory_mib']:.0f} MiB" if of.get(e, {}).get("memory_mib") else "" for e in engines]
        ratio = f"{ratios[-1]:.2f}x" if "native" in of and others else ""
        lines.append([*case, *times, ratio, *(memory if any(memory) else ())])
    headers = ["config", "mode", "precision", *engines, "ratio", *(f"{e}, peak" for e in engines)]
    summary = f"ratios of {min(ratios):.2f}x to {max(ratios):.2f}x" if ratios else "the native engine alone"
    return summary, tabulate(lines, headers[: max(map(len, lines))], tablefmt="github", disable_numparse=True)


def read_steps(file: Path) -> tuple[str, str]:
    """Return SNI's ratios and a table from the JSON file of `benchmark.py upsampling`.

    A ratio divides the time of a step by that of nearest-neighbour interpolation, forward and backward, and is the
    median over the levels.
    """
    ratios: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in _rows(file):
        column = ratios.setdefault(row["kind"], {}).setdefault(f"{row['dtype']}, {row['layout']}", [])
        column.append((row["forward_ratio"], row["backward_ratio"]))
    lines, columns = [], list(ratios["sni"])
    for kind, of in ratios.items():
        lines.append([kind, *(" / ".join(f"{median(way):.2f}" for way in zip(*of[column])) for column in columns)])
    worst = max(max(pair) for pairs in ratios["sni"].values() for pair in pairs)
    table = tabulate(lines, ["forward / backward", *columns], tablefmt="github", disable_numparse=True)
    return f"SNI takes at most {worst:.2f}x the time of nearest-neighbour interpolation", table


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON file of `benchmark.py`."""
    return [row for run in json.loads(file.read_text(encoding="utf-8"))["runs"] for row in run["results"]["rows"]]


def read_training(folder: Path, least: float) -> tuple[str, str]:
    """Return the AP50 of a training and its peak memory.

    Raises:
        UserError: the AP50 is below `least`.
    """
    (results,) = folder.glob("inference/*/results.json")
    ap50 = json.loads(results.read_text(encoding="utf-8"))["bbox"]["AP50"] or 0.0
    _, memory = read_metrics(folder / "metrics.json")["peak_memory_mib"]
    peak = memory.max()
    summary = f"AP50 {ap50:.1f}, at least {least:.0f} expected; peak memory {peak:.0f} MiB"
    if ap50 < least:
        raise UserError(summary)
    return summary, ""


if __name__ == "__main__":
    sys.exit(main())
