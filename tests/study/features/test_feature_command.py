"""The features of images and of a study: the files that are written, and the messages about mistakes."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sn2fpn.checkpoint import Checkpointer
from sn2fpn.command_line import CommandLineParser
from sn2fpn.config import CfgNode, get_cfg
from sn2fpn.data.shapes import write_shapes
from sn2fpn.errors import UserError
from sn2fpn.modeling import build_model
from sn2fpn.study.arguments import add_features
from sn2fpn.study.features.command import main, name_models
from sn2fpn.study.features.examine import _drawings, measure_study, write_results
from sn2fpn.study.spec.variants import Cell

CONFIGS = Path(__file__).parents[3] / "configs/quick"
KEYS: list[Any] = ["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16]


def config(name: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"faster_rcnn_R18_{name}_shapes.yaml"))
    cfg.merge_from_list(KEYS)
    return cfg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three images with annotations in `shapes`, and a study folder in which ihp is not trained."""
    root = tmp_path_factory.mktemp("features")
    write_shapes(root / "shapes", {"train": (1, 1), "val": (3, 2)})
    for name in ("fpn", "sni"):
        torch.manual_seed(3)
        Checkpointer(build_model(config(name)), root / f"study/cells/{name}/seed7").save("model_final")
    return root


def run(folder: Path, output: Path, names: tuple[str, ...] = ("fpn", "sni"), **flags: Any) -> int:
    parser = CommandLineParser()
    add_features(parser)
    values: dict[str, Any] = {
        "input": [folder / "shapes/val/000001.jpg"],
        "config-file": [CONFIGS / f"faster_rcnn_R18_{name}_shapes.yaml" for name in names],
        "weights": [folder / f"study/cells/{name}/seed7/model_final.pth" for name in names],
        "output": [output],
        **flags,
    }
    argv = [str(word) for key, words in values.items() for word in (f"--{key}", *words)]
    return main(parser.parse_args([*argv, *map(str, KEYS)]))


def test_with_annotations(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = folder / "shapes/annotations/instances_val.json"
    pictures = [folder / f"shapes/val/00000{i}.jpg" for i in (1, 2, 3)]
    assert run(folder, tmp_path / "out", input=pictures, annotations=[annotations], drawings=[2]) == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"000001.png", "000003.png", "features.json"}
    results = json.loads((tmp_path / "out/features.json").read_text())
    assert results.pop("images") == 3 and results.pop("set") == str(annotations)
    results = results["variants"]
    assert list(results) == ["fpn", "sni"] and list(results["sni"]) == ["p2", "p3", "p4", "p5"]
    objects = _objects_by_level(json.loads(annotations.read_text()))
    assert objects["p2"] and objects["p3"] and not objects["p5"]
    for levels in results.values():
        assert {name: level["boxes"] for name, level in levels.items()} == objects
        assert 0 <= levels["p2"]["localisation"] <= 1
        assert -1 <= levels["p2"]["agreement_inside"] <= 1
        assert levels["p5"]["coarse_share"] is None
    # With the same weights, the trunk gives the same maps, and at p4 SNI adds a quarter of what FPN adds.
    assert results["fpn"]["p2"]["localisation_before"] == results["sni"]["p2"]["localisation_before"]
    fpn, sni = (results[name]["p4"]["coarse_share"] for name in ("fpn", "sni"))
    assert sni / (1 - sni) == pytest.approx(0.25 * fpn / (1 - fpn), rel=2e-2)
    text = capsys.readouterr().out
    assert "Means over 3 images" in text and "coarse" in text and "000003.png" in text
    for column in ("localisation: from 0 to 1", "coarse share: from 0 to 1", "agreement: from -1 to 1"):
        assert column in text
    assert "more is not better by itself" in text


def _objects_by_level(coco: dict[str, Any]) -> dict[str, int]:
    """Count the objects of each level in images whose shorter side is 192 pixels: p3 starts at 112, p4 at 224."""
    scales = {image["id"]: 192 / min(image["height"], image["width"]) for image in coco["images"]}
    sizes = [(a["bbox"][2] * a["bbox"][3]) ** 0.5 * scales[a["image_id"]] for a in coco["annotations"]]
    limits = {"p2": (0, 112), "p3": (112, 224), "p4": (224, 448), "p5": (448, math.inf)}
    return {name: sum(low <= size < high for size in sizes) for name, (low, high) in limits.items()}


def test_without_annotations(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, tmp_path / "out", names=("sni",)) == 0
    results = json.loads((tmp_path / "out/features.json").read_text())
    assert results["set"] is None
    (levels,) = results["variants"].values()
    assert levels["p2"]["localisation"] is None and levels["p2"]["coarse_share"] > 0
    text = capsys.readouterr().out
    assert "Means over 1 image:" in text and "localisation" not in text and "Without --annotations" in text
    assert np.asarray(Image.open(tmp_path / "out/000001.png")).std() > 10


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes((folder / "shapes/val/000001.jpg").read_bytes()[:500])
    (tmp_path / "clip.mp4").touch()
    val, train = (folder / f"shapes/annotations/instances_{s}.json" for s in ("val", "train"))
    weights = folder / "study/cells/fpn/seed7/model_final.pth"
    stranger = tmp_path / "000009.jpg"
    Image.new("RGB", (64, 48)).save(stranger)
    Image.new("RGB", (64, 48)).save(tmp_path / "000001.jpg")
    for flags, words in [
        ({"weights": [weights]}, "--weights: 2 configurations need 2 checkpoints, in the same order, found 1"),
        ({"weights": [weights, tmp_path / "none.pth"]}, "none.pth"),
        ({"config-file": [tmp_path / "none.yaml", tmp_path / "none.yaml"]}, "none.yaml"),
        ({"input": [tmp_path / "none.jpg"]}, r"--input: no file matches .*none\.jpg"),
        ({"input": [tmp_path / "broken.jpg"]}, r"broken\.jpg: not decodable"),
        ({"input": [tmp_path / "clip.mp4"]}, "expected images, found the video"),
        ({"annotations": [tmp_path / "none.json"]}, r"none\.json: annotation file does not exist"),
        ({"input": [stranger], "annotations": [val]}, "has no image '000009.jpg'; did you mean '00000"),
        ({"input": [tmp_path / "000001.jpg"], "annotations": [train]}, "the image is 64x48"),
        ({"output": [tmp_path], "input": [tmp_path / "000001.png"]}, "would replace the input"),
    ]:
        if flags.get("output"):
            Image.new("RGB", (64, 48)).save(tmp_path / "000001.png")
        with pytest.raises(UserError, match=words):
            run(folder, flags.pop("output", [tmp_path / "out"])[0], **flags)
    assert not (tmp_path / "out").exists()


def test_annotations_of_linked_pictures_and_none(folder: Path, tmp_path: Path) -> None:
    annotations = folder / "shapes/annotations/instances_val.json"
    stored, link = tmp_path / "ab12.jpg", tmp_path / "shapes/val/000001.jpg"
    link.parent.mkdir(parents=True)
    stored.write_bytes((folder / "shapes/val/000001.jpg").read_bytes())
    link.symlink_to(stored)
    assert run(folder, tmp_path / "out", names=("sni",), input=[link], annotations=[annotations]) == 0
    content = json.loads(annotations.read_text())
    del content["annotations"]
    (tmp_path / "bare.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"^--annotations .*bare\.json: 3 of 3 images have no 'annotations'"):
        run(folder, tmp_path / "out2", names=("sni",), annotations=[tmp_path / "bare.json"])


def test_models_are_named_by_what_tells_them_apart() -> None:
    a, b = "c/faster_rcnn_R50_fpn.yaml", "c/faster_rcnn_R50_sni.yaml"
    assert name_models([a, b], []) == ["fpn", "sni"]
    assert name_models([a], []) == ["faster_rcnn_R50_fpn"]
    assert name_models(["x.yaml", "x_sni.yaml"], []) == ["x", "x_sni"]
    assert name_models([a, a], ["out/seed1/m.pth", "out/seed2/m.pth"]) == ["seed1", "seed2"]
    assert name_models([a, a], []) == ["faster_rcnn_R50_fpn (1)", "faster_rcnn_R50_fpn (2)"]


@dataclass(frozen=True)
class FakeStudy:
    """A study with what `measure_study` reads."""

    shapes: Path
    names: tuple[str, ...]

    @property
    def variants(self) -> tuple[SimpleNamespace, ...]:
        return tuple(SimpleNamespace(name=name) for name in self.names)

    @property
    def baseline(self) -> SimpleNamespace:
        return self.variants[0]

    @property
    def cells(self) -> list[Cell]:
        return [Cell(variant, 7) for variant in self.variants]

    def config(self, variant: SimpleNamespace, seed: int = 7) -> CfgNode:
        cfg = config(variant.name)
        cfg.merge_from_list(["SEED", seed, "DATASETS.TEST", ["features_shapes"]])
        cfg.DATASETS.CUSTOM = [
            {
                "NAME": "features_shapes",
                "FORMAT": "coco",
                "IMAGES": str(self.shapes / "val"),
                "JSON": str(self.shapes / "annotations/instances_val.json"),
            }
        ]
        return cfg


def test_variants_may_have_any_name(tmp_path: Path) -> None:
    """Variants that are called like the other keys of the file do not overwrite them."""
    measures = {name: {"p2": {"boxes": 3}} for name in ("set", "images", "variants")}
    found = write_results(measures, 5, "shapes", tmp_path / "features.json")
    assert found == json.loads((tmp_path / "features.json").read_text())
    assert found == {"images": 5, "set": "shapes", "variants": measures}


def test_a_study(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = FakeStudy(folder / "shapes", ("fpn", "sni", "ihp"))
    with caplog.at_level(logging.INFO, "sn2fpn"):
        results = measure_study(study, folder / "study", images=2, drawn=1)
    assert results == json.loads((folder / "study/features.json").read_text())
    assert list(results["variants"]) == ["fpn", "sni"]  # ihp is not trained
    assert results["images"] == 2 and results["set"] == "features_shapes"
    measures = {"localisation", "coarse_share", "agreement_inside", "agreement_outside"}
    assert set(results["variants"]["fpn"]["p2"]) >= measures
    assert [p.name for p in (folder / "study/features").iterdir()] == ["000001.png"]
    assert "ihp is left out" in caplog.text
    path = folder / "study/features.json"
    path.write_text(json.dumps(results | {"variants": {"ihp": {"p2": {"coarse_share": 0.0}}, "x": {}}}))
    again = measure_study(study, folder / "study", images=2, drawn=1)["variants"]  # as after merging with an archive
    assert list(again) == ["fpn", "sni", "ihp"] and again["ihp"] == {"p2": {"coarse_share": 0.0}}
    with pytest.raises(UserError, match="no variant has trained weights; run"):
        measure_study(FakeStudy(folder / "shapes", ("ihp",)), folder / "study")


def test_drawings_of_equal_names_are_kept_apart_and_old_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "old.png").touch()
    records = [{"file_name": f"cam{i}/0001.jpg"} for i in range(4)]
    files = _drawings(records, 2, tmp_path)
    assert len(files) == 2 and files == {i: tmp_path / f"0001_{i}.png" for i in files}
    assert not list(tmp_path.iterdir())
