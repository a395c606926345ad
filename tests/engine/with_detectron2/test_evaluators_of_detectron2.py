"""Tests that Detectron2's trainer evaluates this project's data sets on the objects that their readers return."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.config import get_cfg
from sn2fpn.data import DatasetCatalog as OurCatalog
from sn2fpn.data import MetadataCatalog as OurMetadata
from sn2fpn.data.mapper import build_mapper
from sn2fpn.errors import UserError
from sn2fpn.evaluation import build_evaluator as build_ours

pytest.importorskip("detectron2", reason="Detectron2 is not installed")
pytestmark = pytest.mark.detectron2

from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402
from detectron2.structures import Boxes, BoxMode, Instances  # noqa: E402

from sn2fpn.engine.detectron2.evaluators import build_evaluator  # noqa: E402
from sn2fpn.engine.detectron2.mapper import Mapper  # noqa: E402
from sn2fpn.integrations.detectron2 import register_custom, share_dataset  # noqa: E402

BOXES = [(10, 10, 50, 40), (20, 15, 90, 70), (60, 30, 110, 60)]  # corners, one object in each image of 120x80 pixels
Register = Callable[..., None]


@pytest.fixture
def register() -> Iterator[Register]:
    """Registers the data set "own" in both catalogs, and forgets it and its slices at the end."""
    yield lambda **entry: register_custom([{"NAME": "own", **{k: str(v) for k, v in entry.items()}}])
    for name in [n for n in DatasetCatalog if n.startswith("own")]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    for name in [n for n in OurMetadata.list() if n.startswith("own")]:
        OurMetadata.remove(name)
    if "own" in OurCatalog:
        OurCatalog.remove("own")


def _images(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    for i in range(len(BOXES)):
        Image.new("RGB", (120, 80), (i, 90, 90)).save(folder / f"{i}.png")
    return [{"id": i, "file_name": f"{i}.png", "height": 80, "width": 120} for i in range(len(BOXES))]


def _coco(folder: Path, *leave_out: str, **changes: Any) -> dict[str, Path]:
    """Write a data set whose annotation ids start at 0, and return its entry in DATASETS.CUSTOM."""
    objects = []
    for i, (x1, y1, x2, y2) in enumerate(BOXES):
        w, h = x2 - x1, y2 - y1
        found = {"id": i, "image_id": i, "category_id": 5, "bbox": [x1, y1, w, h], "area": w * h, "iscrowd": 0}
        found["segmentation"] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        found |= {key: value[i] for key, value in changes.items()}
        objects.append({key: value for key, value in found.items() if key not in leave_out})
    content = {"images": _images(folder / "images"), "annotations": objects, "categories": [{"id": 5, "name": "thing"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return {"FORMAT": "coco", "ANNOTATIONS": folder / "labels.json", "IMAGES": folder / "images"}


def _scores(folder: Path, masks: bool = False, name: str = "own", **keys: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores of perfect detections in Detectron2's trainer and in the native engine."""
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.MASK_ON", masks, *(x for k, v in keys.items() for x in (k.replace("__", "."), v))])
    found = []
    for evaluator in (build_evaluator(cfg, name, folder), build_ours(cfg, name, folder / "ours")):
        evaluator.reset()
        for record in DatasetCatalog.get(name):
            boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]]
            out = Instances((record["height"], record["width"]))
            out.pred_boxes, out.scores = Boxes(torch.tensor(boxes)), torch.full((len(boxes),), 0.9)
            out.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
            if masks:
                out.pred_masks = torch.zeros(len(boxes), 80, 120, dtype=torch.bool)
                for mask, (x1, y1, x2, y2) in zip(out.pred_masks, np.rint(boxes).astype(int)):
                    mask[y1:y2, x1:x2] = True
            evaluator.process([record], [{"instances": out}])
        found.append(evaluator.evaluate())
    return found[0], found[1]


@pytest.mark.parametrize("missing", [(), ("iscrowd",), ("area",), ("iscrowd", "area", "segmentation")], ids="-".join)
def test_coco_files_that_detectron2_reads_wrongly_itself(
    missing: tuple[str, ...], register: Register, tmp_path: Path
) -> None:
    """The number 0 is no match for pycocotools, and it needs keys that tools for annotations leave out."""
    register(**_coco(tmp_path, *missing))
    theirs, ours = _scores(tmp_path / "out")
    assert theirs["bbox"]["AP"] == ours["bbox"]["AP"] == pytest.approx(100)
    assert MetadataCatalog.get("own").get("json_file") is None


def test_objects_count_by_their_annotated_area(register: Register, tmp_path: Path) -> None:
    register(**_coco(tmp_path, area=[20000, 20000, 100]))
    for name in ("own", "own[1:3]"):
        share_dataset(name)
        theirs, ours = _scores(tmp_path / "out", name=name)
        assert [theirs["bbox"][key] for key in ("APs", "APl")] == pytest.approx([100, 100])
        assert {key: ours["bbox"][key] for key in theirs["bbox"]} == pytest.approx(theirs["bbox"], nan_ok=True)


@pytest.mark.parametrize("without", [0, 1, 3])
def test_objects_without_a_mask(without: int, register: Register, tmp_path: Path) -> None:
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in BOXES]
    register(**_coco(tmp_path, segmentation=[[]] * without + polygons[without:]))
    theirs, ours = _scores(tmp_path / "out", masks=True)
    assert set(theirs) == set(ours) == ({"bbox", "segm"} if without < 3 else {"bbox"})
    for task, scores in theirs.items():
        assert {key: ours[task][key] for key in scores} == pytest.approx(scores, nan_ok=True)
    assert theirs["bbox"]["AP"] == pytest.approx(100)


def test_an_evaluation_sees_labels_that_were_changed(register: Register, tmp_path: Path) -> None:
    entry = _coco(tmp_path)
    register(**entry)
    share_dataset("own[:2]")
    assert _scores(tmp_path / "out", name="own[:2]")[0]["bbox"]["AP"] == pytest.approx(100)
    content = json.loads(entry["ANNOTATIONS"].read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = [1, 1, 20, 20]
    entry["ANNOTATIONS"].write_text(json.dumps(content))
    assert _scores(tmp_path / "out", name="own[:2]")[0]["bbox"]["AP"] == pytest.approx(100)


def test_images_without_annotations_are_detected_and_not_scored(register: Register, tmp_path: Path) -> None:
    entry = _coco(tmp_path)
    content = json.loads(entry["ANNOTATIONS"].read_text())
    del content["annotations"]
    entry["ANNOTATIONS"].write_text(json.dumps(content))
    register(**entry)
    cfg = get_cfg()
    evaluator = build_evaluator(cfg, "own", tmp_path / "out")
    evaluator.reset()
    for record in DatasetCatalog.get("own"):
        out = Instances((80, 120), pred_boxes=Boxes(torch.ones(0, 4)), scores=torch.ones(0))
        out.pred_classes = torch.ones(0, dtype=torch.int64)
        evaluator.process([record], [{"instances": out}])
    assert not evaluator.evaluate()


def _voc(folder: Path, split: bool) -> dict[str, Path]:
    """Write VOC files without the optional elements and with fractions of a pixel; `split` also writes one list."""
    _images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for i, corners in enumerate(BOXES):
        box = "".join(f"<{k}>{v + 1}.5</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners))
        size = "<size><width>120</width><height>80</height><depth>3</depth></size>"
        text = f"<annotation><filename>{i}.png</filename>{size}<object><name>thing</name><bndbox>{box}</bndbox>"
        (folder / "Annotations" / f"{i}.xml").write_text(f"{text}</object></annotation>")
    if split:
        (folder / "ImageSets/Main").mkdir(parents=True)
        (folder / "ImageSets/Main/train.txt").write_text("0\n1\n2\n")
        return {"FORMAT": "voc", "ANNOTATIONS": folder}
    return {"FORMAT": "voc", "ANNOTATIONS": folder / "Annotations", "IMAGES": folder / "JPEGImages"}


@pytest.mark.parametrize("split", [True, False])
def test_voc_files_that_detectron2_cannot_read_itself(split: bool, register: Register, tmp_path: Path) -> None:
    register(**_voc(tmp_path, split))
    share_dataset("own[:2]")
    for name in ("own", "own[:2]"):
        for evaluator in ("auto", "coco"):
            theirs, ours = _scores(tmp_path / "out", name=name, TEST__EVALUATOR=evaluator)
            assert theirs["bbox"]["AP"] == ours["bbox"]["AP"] == pytest.approx(100)


def test_vocs_metric_of_other_data_sets(register: Register, tmp_path: Path) -> None:
    register(**_coco(tmp_path))
    assert _scores(tmp_path / "out", TEST__EVALUATOR="voc")[0]["bbox"]["AP"] == pytest.approx(100)
    cfg = get_cfg()
    cfg.TEST.EVALUATOR = "voc"
    with pytest.raises(UserError, match=r"VOC's metric needs .* found 'cityscapes_fine_instance_seg_val'; set TEST"):
        build_evaluator(cfg, "cityscapes_fine_instance_seg_val", tmp_path)


def test_a_name_that_detectron2_has_is_refused(register: Register, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DATASETS.CUSTOM \(lvis_v1_val\): the NAME .* is taken by a data set of Det"):
        register_custom([{"NAME": "lvis_v1_val", **{k: str(v) for k, v in _coco(tmp_path).items()}}])
    OurCatalog.remove("lvis_v1_val")


@pytest.mark.parametrize("is_train", [True, False])
def test_gray_images_of_16_bits_are_refused(is_train: bool, tmp_path: Path) -> None:
    cfg = get_cfg()
    ramp = np.linspace(0, 65535, 80 * 120).reshape(80, 120)
    for dtype, scale in ((np.uint16, 1), (np.uint8, 257)):
        path = tmp_path / f"{scale}.png"
        Image.fromarray((ramp / scale).astype(dtype)).save(path)
        record = {"file_name": str(path), "height": 80, "width": 120, "image_id": 0, "annotations": []}
        if scale == 1:
            with pytest.raises(UserError, match=r"1.png: Detectron2 reads gray images of 16 bits as white; .*native"):
                Mapper(cfg, is_train)(record)
        else:
            assert 120 < Mapper(cfg, is_train)(record)["image"].float().mean() < 135


def test_whole_coordinates_keep_their_fractions_when_they_are_resized(register: Register, tmp_path: Path) -> None:
    """Exporters write whole numbers, from which Detectron2's transforms cut the fractions off."""
    register(**_coco(tmp_path))
    cfg = get_cfg()
    cfg.MODEL.MASK_ON, cfg.INPUT.RANDOM_FLIP = True, "none"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (93,), "choice"
    for record in OurCatalog.get("own"):
        ours = build_mapper(cfg, is_train=True)(record, np.random.default_rng(0))["instances"]
        theirs = Mapper(cfg, True)(record)["instances"]
        assert (ours.gt_boxes.tensor % 1 > 0.1).any()
        torch.testing.assert_close(theirs.gt_boxes.tensor, ours.gt_boxes.tensor, atol=1e-4, rtol=0)
        for polygons, same in zip(ours.gt_masks.polygons, theirs.gt_masks.polygons, strict=True):
            np.testing.assert_allclose(polygons, same, atol=1e-4)
