"""The tables of the detectors: ratios between the engines, and the time and the rate of each stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sn2fpn.errors import counted

from .engines import STAGES
from .picture import Bars
from .table import Table, groups, mark

__all__ = ["bars", "tables"]

Row = dict[str, Any]
_WORK = ("config", "changes", "size", "device", "threads")


def tables(results: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Yield the tables of one or several results of `benchmarks.detector.run`."""
    peaks = [{"device": result["device"], **peak} for result in results for peak in result["peaks"]]
    rows = [{"device": result["device"], **row} for result in results for row in result["rows"]]
    yield _peaks(peaks)
    if any(row["engine"] == "native" for row in rows):
        yield _ratios(rows)
    for group in groups(rows, *_WORK):
        yield _times(group)
        yield _rates(group, peaks)


def _peaks(peaks: Sequence[Row]) -> Table:
    columns = list(dict.fromkeys((p["work"], p["layout"]) for p in peaks))
    cells = []
    for group in groups(peaks, "device", "threads", "precision"):
        rates = {(p["work"], p["layout"]): f"{p['gflop_s']:.0f}" for p in group}
        cells.append([group[0]["device"], str(group[0]["threads"]), group[0]["precision"], *map(rates.get, columns)])
    return Table("The machine's peak in GFLOP/s", ["device", "threads", "precision", *map(", ".join, columns)], cells)


def _ratios(rows: Sequence[Row]) -> Table:
    """Compare each figure of the native engine with the best of the others in float32 and in the same precision."""
    cells = []
    for group in groups(rows, *_WORK, "mode", "batch"):
        for row in (r for r in group if r["engine"] == "native"):
            cell = [_detector(row), row["mode"], str(row["batch"]), str(row["threads"])]
            cell += [row["precision"], mark(f"{row['seconds']:.3f} s", row)]
            for precision in ("float32", row["precision"]):
                others = [r for r in group if r["engine"] != "native" and r["precision"] == precision]
                cell += _best(others, row["seconds"])
            cells.append(cell)
    headers = ["detector", "work", "images", "threads", "precision", "native"]
    headers += ["best other in float32", "ratio", "best other in this precision", "ratio"]
    note = "A ratio is the time of the other engine divided by that of the native one."
    return Table("The native engine and the faster one of the others", headers, cells, [note])


def _best(others: Sequence[Row], seconds: float) -> list[str]:
    if not others:
        return ["", ""]
    best = min(others, key=lambda r: r["seconds"])
    return [f"{best['engine']} {best['seconds']:.3f} s", f"{best['seconds'] / seconds:.2f}x"]


def _times(group: Sequence[Row]) -> Table:
    """Return seconds and memory, with lines for the stages and columns for the contenders."""
    names, cells = _contenders(group), []
    for mode in groups(group, "mode", "batch"):
        for stage in ("", *mode[0]["stages"]):
            seconds = {_contender(r): r["stages"][stage] if stage else r["seconds"] for r in mode}
            texts = dict(zip(seconds, _with_ratios(list(seconds.values()), "{:.3f} s")))
            marked = {_contender(r): mark(texts[_contender(r)], r) for r in mode}
            cells.append([_label(mode[0], stage), *(marked.get(name, "") for name in names)])
        memory = {_contender(r): r["memory_mib"] for r in mode if r["memory_mib"]}
        if memory:
            texts = dict(zip(memory, _with_ratios(list(memory.values()), "{:.0f} MiB")))
            cells.append([f"{mode[0]['mode']}: peak memory", *(texts.get(name, "") for name in names)])
    title = f"{_detector(group[0])}, {_where(group[0])}: seconds of the stages, and ratios to the first column"
    return Table(title, ["", *names], cells, [_work(group)])


def _with_ratios(values: Sequence[float], unit: str) -> list[str]:
    """Format values and their ratios to the first one."""
    first = values[0]
    return [unit.format(v) + (f" ({v / first:.2f}x)" if i and first else "") for i, v in enumerate(values)]


def _rates(group: Sequence[Row], peaks: Sequence[Row]) -> Table:
    """Return the rates of all stages that compute something."""
    names, cells = _contenders(group), []
    for mode in groups(group, "mode", "batch"):
        for stage in ("", *(name for name, gflop in mode[0]["gflop_stages"].items() if gflop)):
            rates = {_contender(r): _rate(r, stage, peaks) for r in mode}
            cells.append([_label(mode[0], stage), *(rates.get(name, "") for name in names)])
    title = f"{_detector(group[0])}, {_where(group[0])}: GFLOP/s of the stages, and the share of the machine's peak"
    return Table(title, ["", *names], cells)


def _rate(row: Row, stage: str, peaks: Sequence[Row]) -> str:
    seconds, gflop = (row["stages"][stage], row["gflop_stages"][stage]) if stage else (row["seconds"], row["gflop"])
    same = ("device", "threads", "precision")
    peak = max((p["gflop_s"] for p in peaks if all(p[name] == row[name] for name in same)), default=0)
    share = f" ({gflop / seconds / peak:.0%})" if peak else ""
    return mark(f"{gflop / seconds:.0f}{share}", row)


def _contenders(group: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(map(_contender, group)))


def _contender(row: Row) -> str:
    return f"{row['engine']} {row['precision']}"


def _label(row: Row, stage: str) -> str:
    images = f"{row['batch']} image{'s' if row['batch'] > 1 else ''}"
    return f"{row['mode']}: {stage}" if stage else f"{row['mode']} of {images}"


def _detector(row: Row) -> str:
    return " ".join([row["config"], *map(str, row["changes"])])


def _where(row: Row) -> str:
    where = row["device"] if row["device"] != "cpu" else counted(row["threads"], "thread")
    return f"{row['size'][0]}x{row['size'][1]}, {where}"


def _work(group: Sequence[Row]) -> str:
    """Say how many proposals and detections each contender had per image."""
    found: dict[str, list[str]] = {}
    for row in group:
        if row["mode"] == "inference":
            work = f"{_numbers(row['proposals'])} proposals and {_numbers(row['detections'])} detections per image"
            found.setdefault(work, []).append(_contender(row))
    if len(found) == 1:
        return f"All had {next(iter(found))}."
    return " ".join(f"{', '.join(names)}: {work}." for work, names in found.items())


def _numbers(counts: Sequence[int]) -> str:
    return "/".join(f"{n:,}" for n in dict.fromkeys(counts))


def bars(results: Sequence[dict[str, Any]]) -> list[Bars]:
    """Return a panel per detector, mode and number of threads, with the stages as segments."""
    rows = [{"device": result["device"], **row} for result in results for row in result["rows"]]
    panels = []
    for group in groups(rows, *_WORK, "mode", "batch"):
        title = f"{_detector(group[0])}: {_label(group[0], '')}\n{_where(group[0])}"
        panels.append(Bars(title, "seconds", {_contender(r): _segments(r) for r in group}))
    return panels


def _segments(row: Row) -> dict[str, float]:
    """Return the seconds of stages that do not overlap: those of a training step are parts of its "forward"."""
    inner = sum(row["stages"][name] for name in STAGES)
    return {
        ("rest of forward" if name == "forward" else name): value - (inner if name == "forward" else 0)
        for name, value in row["stages"].items()
    }
