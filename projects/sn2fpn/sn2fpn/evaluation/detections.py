"""The base class of the evaluators: it collects detections, gathers them and writes them as COCO JSON."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from ..atomic import atomic_write
from ..data.catalog import DatasetCatalog, MetadataCatalog, category_ids, class_names
from ..data.masks import check_segmentation
from ..data.selection import require_annotations
from ..data.values import is_number
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
    masks: list[dict[str, Any]] | None = None  # N RLE masks of the whole image; None if the model has no masks

    @classmethod
    def from_instances(cls, image_id: ImageId, instances: Instances) -> ImageDetections:
        """Convert a model's `pred_boxes`, `scores`, `pred_classes` and, if present, `pred_masks` (N, H, W)."""
        instances = instances.to("cpu")
        return cls(
            image_id,
            instances.pred_boxes.tensor.float().numpy(),
            instances.scores.float().numpy(),
            instances.pred_classes.long().numpy(),
            masks_to_rle(instances.pred_masks) if instances.has("pred_masks") else None,
        )


class DetectionEvaluator(DatasetEvaluator):
    """The base class of evaluators that collect detections in all processes and score them in the main process.

    Subclasses implement `_score(detections)` and `_judge(detections)`.

    Attributes:
        class_names: the class names by contiguous id.

    Args:
        dataset_name: a registered data set.
        output_dir: the folder for `coco_instances_results.json`; None writes no file.
        distributed: gather the detections of all processes; False scores the detections of this process.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None, *, distributed: bool = True) -> None:
        self._dataset_name = dataset_name
        self._distributed = distributed
        self.class_names = class_names(dataset_name)
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = Path(output_dir) if output_dir else None
        self._detections: list[ImageDetections] = []

    def reset(self) -> None:
        self._detections = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Store the `instances` (`pred_boxes`, `scores`, `pred_classes`, `pred_masks`) of each image."""
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
        path = None if self._output_dir is None else self._output_dir / "coco_instances_results.json"
        if path is not None:
            results = to_coco_results(detections, category_ids(self._dataset_name))
            with atomic_write(path) as file:
                json.dump(results, file)
            logger.info("%d detections written to %s", len(results), path)
        if not all("annotations" in record for record in self.records):
            return self._without_truth(path)
        if not any(len(d.scores) for d in detections):
            logger.warning(
                "the model detected nothing in the %d processed images of %r", len(detections), self._dataset_name
            )
        return self._score(detections)

    def _without_truth(self, path: Path | None) -> Results:
        """Return no score, because a data set has no annotations; a UserError says so if no file was written."""
        without = f"data set {self._dataset_name!r} has no annotations, so that no score can be computed"
        if path is None:
            raise UserError(f"{without}; evaluate on another data set, or give output_dir to keep the detections")
        logger.warning("%s; the detections are in %s", without, path)
        return {}

    def judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        """Match detections with objects and return the judged detections of each task.

        Their method `scores` computes the metric for any resampling of the images; with each image once, it returns the
        scores of `evaluate`. Without any detection, it returns 0 where there are objects.

        Raises:
            UserError: the data set has no annotations, or the detections belong to another one.
        """
        require_annotations(self.records, f"data set {self._dataset_name!r}")
        return self._judge(self._in_dataset_order(detections))

    def read_detections(self, path: str | Path) -> list[ImageDetections]:
        """Read the detections in a `coco_instances_results.json`, one entry per image of the data set.

        Raises:
            UserError: the file is missing, is not a list of valid results, or belongs to another data set.
        """
        path = Path(path)
        try:
            results = json.loads(path.read_bytes())
            if not isinstance(results, list):
                kept = (
                    "; its key 'annotations' holds one"
                    if isinstance(results, dict) and "annotations" in results
                    else ""
                )
                raise ValueError(f"found {type(results).__name__}{kept}")
            by_image: dict[ImageId, list[dict[str, Any]]] = {record["image_id"]: [] for record in self.records}
            class_of = {own: c for c, own in enumerate(category_ids(self._dataset_name))}
            for result in results:
                for what, known in (("image", by_image), ("category", class_of)):
                    if (found_id := result[f"{what}_id"]) not in known:
                        whose = f"expected COCO results for data set {self._dataset_name!r}"
                        raise UserError(f"{path}: {whose}, which has no {what} {found_id!r}")
                by_image[result["image_id"]].append(result)
            with_masks = any("segmentation" in result for result in results)
            found = zip(self.records, by_image.values())
            return [_from_coco_results(record, of_image, class_of, with_masks) for record, of_image in found]
        except FileNotFoundError:
            raise UserError(f"{path}: file of predictions does not exist; an evaluation writes it") from None
        except UserError:
            raise
        except KeyError as e:
            raise UserError(f"{path}: expected a list of COCO results, found one without {e.args[0]!r}") from None
        except (AttributeError, OSError, RecursionError, TypeError, ValueError) as e:
            raise UserError(f"{path}: expected a list of COCO results: {e}") from None

    @cached_property
    def records(self) -> Sequence[dict[str, Any]]:
        """The data set dicts, which are read once, and only in the process that computes the scores."""
        return DatasetCatalog.read(self._dataset_name)

    def counts(self, annotation: dict[str, Any]) -> bool:
        """Return whether the metric counts an object. Detections of the other ones are neither right nor wrong."""
        return not annotation.get("iscrowd", 0)

    def _score(self, detections: list[ImageDetections]) -> Results:
        """Compute the scores of detections, given as one entry per processed image in the order of the data set."""
        raise NotImplementedError

    def _judge(self, detections: list[ImageDetections]) -> dict[str, JudgedDetections]:
        """Match detections with objects; see `judge` and `_score`."""
        raise NotImplementedError

    def _in_dataset_order(self, detections: list[ImageDetections]) -> list[ImageDetections]:
        """Return one entry per image, so that scores do not depend on the number of processes.

        Samplers may pad the share of a process with images of another one. The first copy counts.
        """
        seen: dict[ImageId, ImageDetections] = {}
        for entry in detections:
            seen.setdefault(entry.image_id, entry)
        order = [record["image_id"] for record in self.records]
        if len(set(order)) < len(order):
            twice = next(image_id for image_id, n in Counter(order).items() if n > 1)
            raise UserError(f"data set {self._dataset_name!r}: expected each image once, found {twice!r} several times")
        if unknown := seen.keys() - set(order):
            raise UserError(
                f"predictions for image {min(map(str, unknown))!r} ({len(unknown)} such images), "
                f"which data set {self._dataset_name!r} does not have"
            )
        if len(seen) < len(order):
            logger.warning(
                "there are predictions for %d of the %d images of %r; the objects in the other images count as missed",
                len(seen),
                len(order),
                self._dataset_name,
            )
        ordered = [seen[image_id] for image_id in order if image_id in seen]
        largest = max((int(d.classes.max()) for d in ordered if len(d.classes)), default=-1)
        if largest >= len(self.class_names):
            raise UserError(
                f"a prediction has class {largest}, but data set {self._dataset_name!r} has "
                f"{len(self.class_names)} classes; check the model's number of classes"
            )
        return ordered


def to_coco_results(detections: Sequence[ImageDetections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Convert detections to COCO's result format.

    Args:
        detections: the detections of some images.
        category_ids: the data set's own category ids in the order of the contiguous class ids.

    Returns:
        A list of dicts with `image_id`, `category_id`, `bbox` (x, y, width, height), `score` and, for a model with
        masks, `segmentation` as RLE.
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
    record: dict[str, Any], results: list[dict[str, Any]], class_of: dict[int, int], with_masks: bool
) -> ImageDetections:
    """Invert `to_coco_results` for one image. Boxes are float64, so that the sums of corners and sizes are exact.

    Raises:
        ValueError: a result has no valid box, score or mask.
    """
    for result in results:
        if not (isinstance(result["bbox"], list) and len(result["bbox"]) == 4 and all(map(is_number, result["bbox"]))):
            bbox = str(result["bbox"])[:200]
            raise ValueError(f"image {record['image_id']!r} has the bbox {bbox}, expected four finite numbers")
        if not is_number(result["score"]):
            raise ValueError(f"image {record['image_id']!r} has the score {result['score']!r}, expected a number")
    xywh = np.array([r["bbox"] for r in results], dtype=np.float64).reshape(-1, 4)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    scores = np.array([r["score"] for r in results], dtype=np.float64)
    classes = np.array([class_of[r["category_id"]] for r in results], dtype=np.int64)
    masks = [_as_rle(r["segmentation"], record) for r in results] if with_masks else None
    return ImageDetections(record["image_id"], boxes, scores, classes, masks)


def _as_rle(segmentation: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Check a mask, which may be given as polygons, and return its run lengths.

    Raises:
        ValueError: the mask is malformed or does not fit the image.
    """
    height, width = record["height"], record["width"]
    try:
        checked = check_segmentation(segmentation, height, width)
    except ValueError as e:
        raise ValueError(f"image {record['image_id']!r}: {e}") from None
    if isinstance(checked, dict):
        return checked
    rle = coco_mask.merge(coco_mask.frPyObjects(checked, height, width))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
