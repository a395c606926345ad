"""What the metrics share: collecting detections, gathering them, writing them as COCO JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..atomic import atomic_write
from ..data.catalog import DatasetCatalog, MetadataCatalog, class_names
from ..distributed import gather, is_main_process
from ..errors import UserError
from ..structures import Instances, masks_to_rle
from .evaluator import DatasetEvaluator, Results
from .resampling import JudgedDetections

__all__ = ["ImageDetections", "DetectionEvaluator", "to_coco_results"]

logger = logging.getLogger(__name__)

ImageId = int | str


class ImageDetections(NamedTuple):
    """The detections of one image."""

    image_id: ImageId
    boxes: np.ndarray  # (N, 4) float32 (x1, y1, x2, y2), pixels of the original image
    scores: np.ndarray  # (N,) float32
    classes: np.ndarray  # (N,) int64, contiguous ids
    masks: list[dict[str, Any]] | None = None  # N times COCO's RLE of the whole image; None: a model without masks

    @classmethod
    def from_instances(cls, image_id: ImageId, instances: Instances) -> ImageDetections:
        """A model's `pred_boxes`, `scores`, `pred_classes` and, if there are any, `pred_masks` (N, H, W)."""
        instances = instances.to("cpu")
        return cls(
            image_id,
            instances.pred_boxes.tensor.float().numpy(),
            instances.scores.float().numpy(),
            instances.pred_classes.long().numpy(),
            masks_to_rle(instances.pred_masks) if instances.has("pred_masks") else None,
        )


class DetectionEvaluator(DatasetEvaluator):
    """Collects detections in every process and scores them in the main one.

    A metric derives from this class and gives `_score(detections)` and `_judge(detections)`.

    Args:
        dataset_name: a registered data set.
        output_dir: where `coco_instances_results.json` is written; None: nowhere.
        distributed: gather the detections of all processes; False: score this process's alone.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None, *, distributed: bool = True) -> None:
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._class_names = class_names(dataset_name)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = Path(output_dir) if output_dir else None
        self._detections: list[ImageDetections] = []

    def reset(self) -> None:
        self._detections = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Keep the `instances` (`pred_boxes`, `scores`, `pred_classes`, `pred_masks` as RLE) of each image."""
        for image, output in zip(inputs, outputs, strict=True):
            self._detections.append(ImageDetections.from_instances(image["image_id"], output["instances"]))

    def evaluate(self) -> Results:
        if self._distributed:
            gathered = gather(self._detections)
            if not is_main_process():
                return {}
        else:
            gathered = [self._detections]
        detections = self._in_dataset_order([d for share in gathered for d in share])
        if self._output_dir is not None:
            path = self._output_dir / "coco_instances_results.json"
            results = to_coco_results(detections, self._dataset_category_ids())
            with atomic_write(path) as file:
                json.dump(results, file)
            logger.info("%d detections written to %s", len(results), path)
        if not any(len(d.scores) for d in detections):
            logger.warning(
                "the model found nothing in the %d images of %r that it saw", len(detections), self._dataset_name
            )
        return self._score(detections)

    def judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        """`{task: judged}`: match once what `scores` then scores for any resampling of the images.

        With each image once these are the scores of `evaluate`.
        """
        return self._judge(self._in_dataset_order(detections))

    def read_detections(self, path: str | Path) -> list[ImageDetections]:
        """The detections in a `coco_instances_results.json`, an entry per image of the data set.

        Raises:
            UserError: the file is missing, is no list of results, or is of another data set.
        """
        path = Path(path)
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            by_image: dict[ImageId, list[dict[str, Any]]] = {record["image_id"]: [] for record in self._records}
            for result in results:
                by_image[result["image_id"]].append(result)
            class_of = {own: c for c, own in enumerate(self._dataset_category_ids())}
            with_masks = any("segmentation" in result for result in results)
            return [_from_coco_results(i, found, class_of, with_masks) for i, found in by_image.items()]
        except FileNotFoundError:
            raise UserError(f"no predictions: {path} does not exist; evaluation writes it") from None
        except KeyError as e:
            raise UserError(
                f"{path}: not of data set {self._dataset_name!r}, or no COCO results: it does not have {e.args[0]!r}"
            ) from None
        except (TypeError, ValueError) as e:
            raise UserError(f"{path}: expected a list of COCO results: {e}") from None

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        """The data set's dicts; read once, and only where the scores are computed."""
        return DatasetCatalog.get(self._dataset_name)

    def _score(self, detections: list[ImageDetections]) -> Results:
        """Scores of the detections, one entry per image seen, in the data set's order."""
        raise NotImplementedError

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        """See `judge`; the detections are as in `_score`."""
        raise NotImplementedError

    def _dataset_category_ids(self) -> list[int]:
        """The data set's own category id of each contiguous class id."""
        own_ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if not own_ids:
            return list(range(len(self._class_names)))
        return [own_id for own_id, _ in sorted(own_ids.items(), key=lambda item: item[1])]

    def _in_dataset_order(self, detections: list[ImageDetections]) -> list[ImageDetections]:
        """One entry per image: scores do not depend on how many processes shared the images.

        Samplers may pad a share with images that another process has; the first copy counts.
        """
        seen: dict[ImageId, ImageDetections] = {}
        for entry in detections:
            seen.setdefault(entry.image_id, entry)
        order = [record["image_id"] for record in self._records]
        if unknown := seen.keys() - set(order):
            raise UserError(
                f"predictions for image {min(map(str, unknown))!r} ({len(unknown)} such images), "
                f"which data set {self._dataset_name!r} does not have"
            )
        if len(seen) < len(order):
            logger.warning(
                "predictions for %d of the %d images of %r; objects in the others count as missed",
                len(seen),
                len(order),
                self._dataset_name,
            )
        ordered = [seen[image_id] for image_id in order if image_id in seen]
        largest = max((int(d.classes.max()) for d in ordered if len(d.classes)), default=-1)
        if largest >= len(self._class_names):
            raise UserError(
                f"a prediction has class {largest}, but data set {self._dataset_name!r} has "
                f"{len(self._class_names)} classes; check the model's number of classes"
            )
        return ordered


def to_coco_results(detections: Sequence[ImageDetections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections in COCO's result format: `image_id`, `category_id`, `bbox` (x, y, width, height), `score`.

    With masks also `segmentation`, as RLE.

    Args:
        category_ids: the data set's own id of each contiguous class id.
    """
    results = []
    for image_id, boxes, scores, classes, masks in detections:
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        found = [
            {"image_id": image_id, "category_id": category_ids[c], "bbox": box, "score": score}
            for c, box, score in zip(classes.tolist(), xywh.tolist(), scores.tolist())
        ]
        for result, mask in zip(found, masks or ()):
            result["segmentation"] = mask
        results += found
    return results


def _from_coco_results(
    image_id: ImageId, results: list[dict[str, Any]], class_of: dict[int, int], with_masks: bool
) -> ImageDetections:
    """The opposite of `to_coco_results`; boxes are float64, in which the corners' sums are exact."""
    xywh = np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    scores = np.array([r["score"] for r in results], dtype=np.float64)
    classes = np.array([class_of[r["category_id"]] for r in results], dtype=np.int64)
    return ImageDetections(
        image_id, boxes, scores, classes, [r["segmentation"] for r in results] if with_masks else None
    )
