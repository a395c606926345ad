"""The report's sentences: what was done, what follows from it, and how to read each part."""

from __future__ import annotations

from collections.abc import Sequence

from ..results import StudyResults
from .comparison import Comparison, best_variant
from .samples import SCORE_THRESHOLD, SampleRow
from .stored import TestSet
from .words import joined, plural

__all__ = ["Notes"]


class Notes:
    """Sentences about one study.

    Args:
        test_set: behind the stored predictions, if it is on this machine.
    """

    def __init__(self, results: StudyResults, test_set: TestSet | None) -> None:
        self._results = results
        self._test_set = test_set
        self._headline = results.label(results.headline)

    def lead(self) -> str:
        study = self._results.study
        return (
            f"{plural(len(study.variants), 'variant')} trained alike with {plural(len(study.seeds), 'seed')}: "
            f"{joined(v.name for v in study.variants)}. Scores are in percent."
        )

    def absent(self) -> str:
        return (
            f"{len(self._results.absent)} of {plural(len(self._results.cells), 'cell')} gave no result. All "
            "numbers below are from the finished cells alone; differences are between seeds that both variants "
            "finished."
        )

    def summary(self, comparisons: Sequence[Comparison]) -> str:
        results = self._results
        if not results.finished:
            return "No cell has finished yet: nothing can be said."
        if not results.of(results.baseline):
            return f"The baseline {results.baseline} has no finished cell: there is nothing to compare with yet."
        if not comparisons:
            return f"Only the baseline {results.baseline} has finished cells: there is nothing to compare yet."
        if all(c.seeds.n < 2 for c in comparisons):
            return (
                f"One seed each: whether {plural(len(comparisons), 'variant')} and {results.baseline} differ in "
                f"{self._headline} beyond the noise between trainings cannot be said."
            )
        apart = [c for c in comparisons if c.verdict.distinguishable]
        if not apart:
            return (
                f"No variant is distinguishable from {results.baseline} in {self._headline} with these seeds and "
                "test images."
            )
        groups = {
            f"better than {results.baseline} by more than noise": [c for c in apart if c.seeds.mean > 0],
            f"worse than {results.baseline} by more than noise": [c for c in apart if c.seeds.mean < 0],
            "not distinguishable from noise": [c for c in comparisons if not c.verdict.distinguishable],
        }
        return (
            f"In {self._headline}, "
            + "; ".join(f"{words}: {joined(c.variant for c in group)}" for words, group in groups.items() if group)
            + "."
        )

    def conclusions(self, comparisons: Sequence[Comparison]) -> list[str]:
        if not comparisons:
            return []
        notes = [
            f"Differences are in points of {self._headline}, paired by seed. The interval over seeds is Student's t: "
            "what other seeds might give. The bootstrap resamples the test images, the same for both sides: what other "
            "images might give. A difference counts when both p-values, corrected for the number of variants (Holm), "
            "are below 0.05; the intervals are not corrected."
        ]
        if any(c.images is None for c in comparisons):
            notes.append("Without a bootstrap over images, where test set or stored predictions are not at hand.")
        seeds = max(c.seeds.n for c in comparisons)
        if 1 < seeds < 5:
            notes.append(f"{plural(seeds, 'seed')} give wide intervals: what is not distinguishable may still differ.")
        return notes

    def results(self) -> list[str]:
        results = self._results
        several = any(len(results.of(name)) > 1 for name in results.variants)
        notes = [
            "Mean ± half of the 95 % confidence interval over seeds (Student's t)."
            if several
            else "One seed per variant: there are no intervals, and no number is bold."
        ]
        if several:
            best = [results.label(m) for m in results.metrics if best_variant(results, m)]
            notes.append(
                "Bold: the best of its column, where the interval of its paired difference to every other "
                "variant excludes zero" + (f" ({joined(best)})." if best else "; that is nowhere the case.")
            )
        sets = list(dict.fromkeys(name for cell in results.finished for name in cell.test_sets))
        if len(sets) > 1:
            notes.append(f"Scores are those on {sets[0]}; results.csv has those on {joined(sets[1:])}, too.")
        left_out = [m for m in results.study.metrics if m not in results.metrics]
        if left_out:
            notes.append(f"The results do not have: {joined(map(results.label, left_out))}.")
        return notes

    def costs(self) -> list[str]:
        results, notes = self._results, []
        sizes = joined(
            "×".join(map(str, c["size"])) for c in results.costs.values() if isinstance(c, dict) and "size" in c
        )
        if results.costs:
            notes.append(
                "Parameters and GFLOPs (multiply-adds) are those of the whole detector, for one image of "
                f"{sizes} pixels (height × width)."
            )
        speed = results.speed
        if not speed:
            return [*notes, "Speed has not been measured yet."]
        work = {key: f"{speed[key]:,} {key}" for key in ("proposals", "detections", "rounds") if speed.get(key)}
        state = joined(
            (
                speed.get("device"),
                plural(speed["threads"], "thread") if speed.get("threads") else "",
                f"images of {_size(speed.get('image_size'))}" if speed.get("image_size") else "",
                f"{plural(speed['batch'], 'image')} a training step" if speed.get("batch") else "",
                *work.values(),
            )
        )
        notes.append(
            "Times are from one back-to-back run of all variants in one process, in turns, with the same "
            f"work; medians over rounds ({state}). Latency is inference of one image; in brackets, the ratio "
            f"to {results.baseline}. Peak memory is what a process that runs one variant alone allocates on "
            "a GPU, or by how much it grows on a CPU."
        )
        if "cores_used_by_others" in speed:
            load = f"Meanwhile other processes used {speed['cores_used_by_others']:g} of {speed.get('cores')} cores"
            notes.append(
                f"{load}."
                if speed.get("reliable", True)
                else f"{load}: the times are not reliable, measure again on an idle machine."
            )
        made_up = [name for name, v in speed.get("variants", {}).items() if v.get("weights") == "made up"]
        if made_up:
            notes.append(f"Timed with made-up weights, as there were no trained ones: {joined(made_up)}.")
        return notes

    def sizes(self) -> str:
        return (
            "COCO's sizes: small below 32² pixels of area, large from 96² on. Bars are 95 % intervals over seeds, "
            "where there is more than one."
        )

    def classes(self) -> str:
        return (
            f"Points of AP more (blue) or less (orange) than {self._results.baseline}, paired by seed, ± half of "
            "the 95 % interval where there is more than one seed. Many classes are compared at once: single ones "
            "that stand out may do so by chance."
        )

    def samples(self, samples: Sequence[SampleRow], trouble: str) -> str:
        if not samples:
            return f"There are no pictures: {trouble}"
        seeds = joined(cells[0].seed for name in self._results.variants if (cells := self._results.of(name)))
        images = f" of the {len(self._test_set.records):,}" if self._test_set else ""
        return (
            f"The same {len(samples)}{images} test images for all, spread evenly over the set, not chosen by "
            f"result; seed {seeds}. Detections scoring {SCORE_THRESHOLD:g} or more are drawn."
        )

    def features(self) -> str:
        features = self._results.features
        known = {"images", "set"} <= features.keys()
        where = f" over {features['images']} images of {features['set']}" if known else ""
        return (
            f"Where each level's feature maps respond before and after fusion, measured{where}; "
            "docs/features.md defines the measures."
        )

    def fairness(self) -> str:
        fingerprints = any(cell.record.get("fingerprint") for cell in self._results.finished)
        return (
            "Between the variants of a seed, everything but the pyramid's own weights and what the axes change "
            "should be equal. Compared are fingerprints of what each cell started from: weights, random numbers, "
            "the first training batches, configuration."
            if fingerprints
            else "The cells have no fingerprints: whether weights, data order and augmentation were equal is not known."
        )


def _size(value: object) -> str:
    return "×".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
