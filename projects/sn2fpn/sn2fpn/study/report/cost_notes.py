"""The words of the report on costs, times and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import counted
from ..measure.results import StudyResults
from .content import joined, listed


def costs(study: StudyResults) -> list[str]:
    measured = [study.costs[name] for name in study.variants if name in study.costs]
    sizes = joined("×".join(map(str, c["size"])) for c in measured if "size" in c)
    of_model = (
        "Parameters and GFLOPs (multiply-adds) are those of the whole detector, for one image of "
        f"{sizes} pixels (height × width)."
    )
    speed = _speed(study) if study.speed else ["The speed has not been measured yet."]
    left_out = "There is no chart for a cost that differs by less than 5 % between the variants."
    return [of_model, *speed, left_out] if measured else speed


def cost_warnings(study: StudyResults) -> list[str]:
    """Return what a reader must know before looking at the times."""
    advice = 'To measure them again on an idle machine, add --again speed to the command under "Run it again".'
    return [f"{doubt} {advice}"] if (doubt := doubt_of_times(study)) else []


def doubt_of_times(study: StudyResults) -> str:
    """Return a sentence that says why the times are not reliable, "" if they are."""
    speed = study.speed
    if not speed or speed.get("reliable", True):
        return ""
    return f"The times are not reliable, because {_load(speed)} while they were measured."


def _works(study: StudyResults) -> dict[str, str]:
    """Return what each timed variant has to do for an image, in words."""
    words = {}
    for name, timed in study.speed.get("variants", {}).items():
        size, *counts = (timed.get(key, study.speed.get(key)) for key in ("image_size", "proposals", "detections"))
        parts = [f"images of {'×'.join(map(str, size))} pixels"] if size else []
        parts += [f"{count:,} {what}" for count, what in zip(counts, ("proposals", "detections")) if count]
        words[name] = ", ".join(parts)
    return words


def _load(speed: Mapping[str, Any]) -> str:
    return f"other processes used {speed['cores_used_by_others']:g} of {speed.get('cores')} cores"


def _speed(study: StudyResults) -> list[str]:
    speed, works = study.speed, _works(study)
    equal = len(set(works.values())) < 2
    state = [
        speed.get("device"),
        counted(speed["threads"], "thread") if speed.get("threads") else "",
        *list(works.values())[: int(equal)],
        f"{counted(speed['batch'], 'image')} per training step" if speed.get("batch") else "",
        f"{speed['rounds']:,} rounds" if speed.get("rounds") else "",
    ]
    notes = [
        "Times are medians over the rounds of one run, in which all variants took turns in one process"
        f"{' and did the same work' * equal} ({joined(state)}). The latency is the time to detect objects in one "
        f"image. Ratios to {study.baseline}, as medians over the rounds, are in brackets. The peak memory is what a "
        "process that runs one variant alone allocates on a GPU, or by how much it grows on a CPU."
    ]
    if not equal:
        each = "; ".join(f"{name} {work}" for name, work in works.items())
        notes.append(f"The variants differ in the work per image: {each}.")
    if "cores_used_by_others" in speed and speed.get("reliable", True):
        notes.append(f"While they were measured, {_load(speed)}.")
    timed = speed.get("variants", {})
    made_up = [name for name in study.variants if timed.get(name, {}).get("weights") == "made up"]
    if made_up:
        notes.append(f"Made-up weights were timed for {listed(made_up)}, because there were no trained ones.")
    return notes
