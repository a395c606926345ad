"""Tests of the command `python -m sn2fpn.data.check`: tables, problems, exit codes and the picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sn2fpn.data.check import main


def test_valid_data_set(coco_name: str, tmp_path: Path, capsys: Any) -> None:
    assert main([coco_name, "--plot", str(tmp_path / "samples.png")]) == 0
    out = capsys.readouterr().out
    assert "3 images, 6 boxes, 2 classes" in out and "medium" in out and "no problems" in out
    assert np.asarray(Image.open(tmp_path / "samples.png")).shape[2] == 3


def test_all_problems_are_listed(coco_set: Any, coco_name: str, capsys: Any) -> None:
    coco_set.content["annotations"][0]["bbox"][2] = -1
    coco_set.content["annotations"][2]["category_id"] = 99
    coco_set.content["images"].append({**coco_set.content["images"][0]})
    coco_set.content["images"][2]["height"] = 65
    coco_set.write()
    picture = coco_set.images / "2.jpg"
    picture.write_bytes(picture.read_bytes()[:300])
    assert main([coco_name]) == 1
    out = capsys.readouterr().out
    for part in ("annotation 1 ", "category 99", "image id 1", "2.jpg: not decodable", "64x64", "64x65", "5 problems"):
        assert part in out, part
    assert out.count("problem: ") == 5


def test_broken_xml_does_not_stop_the_check(voc_root: Path, registered: None, capsys: Any) -> None:
    for file_id in "ab":
        (voc_root / "Annotations" / f"{file_id}.xml").write_text("<annotation><object></annotation>")
    entry = [{"NAME": "mine", "FORMAT": "voc", "ROOT": str(voc_root), "SPLIT": "all"}]
    assert main(["mine", "DATASETS.CUSTOM", repr(entry), "MODEL.ROI_HEADS.NUM_CLASSES", "3"]) == 1
    out = capsys.readouterr().out
    assert "a.xml: not readable" in out and "b.xml: not readable" in out and "1 valid image" in out
    assert "NUM_CLASSES: expected 2, the number of classes of data set 'mine'" in out


def test_config_file_names_the_sets(coco_set: Any, tmp_path: Path, registered: None, capsys: Any) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"DATASETS:\n  CUSTOM: [{{NAME: from_file, FORMAT: coco, JSON: {coco_set.json}, IMAGES: {coco_set.images}}}]\n"
        "  TRAIN: ('from_file',)\n  TEST: ('from_file',)\nMODEL:\n  ROI_HEADS:\n    NUM_CLASSES: 2\n"
    )
    assert main(["--config-file", str(config)]) == 0
    assert capsys.readouterr().out.count("== from_file") == 1
    assert main(["--config-file", str(config), "MODEL.MASK_ON", "True"]) == 1
    problem = "problem: from_file: MODEL.MASK_ON, INPUT.MASK_FORMAT: 'polygon' asks for masks, but none"
    assert problem in capsys.readouterr().out
    only_tested = ["MODEL.MASK_ON", "True", "DATASETS.TRAIN", "()"]  # it can be evaluated by its boxes
    assert main(["--config-file", str(config), *only_tested]) == 0


def test_a_set_of_ones_own_needs_no_name_and_a_path_is_explained(
    coco_set: Any, registered: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own = f"{{mine: {{ANNOTATIONS: {coco_set.json}, IMAGES: {coco_set.images}}}}}"
    assert main(["DATASETS.CUSTOM", own]) == 0
    assert "== mine" in capsys.readouterr().out
    assert main([str(coco_set.json)]) == 2
    said = capsys.readouterr().err
    assert (
        "expected the name of a data set; to check it: " in said
        and f"{{mine: {{ANNOTATIONS: {coco_set.json}}}}}" in said
    )


def test_a_file_of_ones_own_registers_the_set(coco_set: Any, registered: None, tmp_path: Path, capsys: Any) -> None:
    code = tmp_path / "my_registered_set.py"
    code.write_text(
        "from sn2fpn.data import register_coco_instances\n"
        f"register_coco_instances('of_mine', {{}}, {str(coco_set.json)!r}, {str(coco_set.images)!r})\n"
    )
    assert main(["of_mine"]) == 2 and "unknown data set 'of_mine'" in capsys.readouterr().err
    assert main(["of_mine", "--import", str(code)]) == 0
    assert "of_mine: 3 valid images, no problems" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "words"), [("TRAIN", "has no 'annotations'|have no 'annotations'"), ("TEST", "")])
def test_data_that_training_refuses_are_a_problem(
    key: str, words: str, coco_set: Any, tmp_path: Path, registered: None, capsys: Any
) -> None:
    del coco_set.content["annotations"]
    coco_set.write()
    keys = {"TRAIN": "()", "TEST": "()"} | {key: "('bare',)"}
    (tmp_path / "bare.yaml").write_text(
        f"DATASETS:\n  CUSTOM: [{{NAME: bare, FORMAT: coco, JSON: {coco_set.json}, IMAGES: {coco_set.images}}}]\n"
        f"  TRAIN: {keys['TRAIN']}\n  TEST: {keys['TEST']}\nMODEL: {{ROI_HEADS: {{NUM_CLASSES: 2}}}}\n"
    )
    assert main(["--config-file", str(tmp_path / "bare.yaml")]) == bool(words)
    said = capsys.readouterr().out
    assert re.search(words, said) and "training leaves such images out" not in said


def test_training_data_without_a_box_are_a_problem(
    coco_set: Any, tmp_path: Path, registered: None, capsys: Any
) -> None:
    coco_set.content["annotations"] = []
    coco_set.write()
    (tmp_path / "empty.yaml").write_text(
        f"DATASETS:\n  CUSTOM: [{{NAME: empty, FORMAT: coco, JSON: {coco_set.json}, IMAGES: {coco_set.images}}}]\n"
        "  TRAIN: ('empty',)\n  TEST: ()\nMODEL: {ROI_HEADS: {NUM_CLASSES: 2}}\n"
    )
    assert main(["--config-file", str(tmp_path / "empty.yaml")]) == 1
    assert "problem: empty: none of the 3 images of data set 'empty' has a box to train on" in capsys.readouterr().out
    assert main(["--config-file", str(tmp_path / "empty.yaml"), "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"]) == 0


def test_the_limit_of_detections_is_known_without_a_configuration(coco_name: str, capsys: Any) -> None:
    assert main([coco_name, "TEST.DETECTIONS_PER_IMAGE", "1"]) == 0
    assert "more than 1 objects" in capsys.readouterr().out


def test_missing_annotation_file_is_a_problem(registered: None, capsys: Any) -> None:
    entry = [{"NAME": "gone", "FORMAT": "coco", "JSON": "gone.json", "IMAGES": "."}]
    assert main(["gone", "DATASETS.CUSTOM", repr(entry)]) == 1
    assert "gone.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco_2017_vall"], "did you mean 'coco_2017_val'"),
        ([], "expected the name of a data set"),
        (["shapes_val", "SOLVER.MAXITER", "3"], "SOLVER.MAXITER"),
        (["shapes_val", "SOLVER.MAX_ITER=3"], "write SOLVER.MAX_ITER 3 instead of SOLVER.MAX_ITER=3"),
        (["--config-file", "no/such.yaml"], "no/such.yaml"),
        (["shapes_val", "--images", "-1"], "--images: expected a whole number of at least 0, found -1"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: Any) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_as_a_program() -> None:
    command = [sys.executable, "-m", "sn2fpn.data.check", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "exit code" in done.stdout and not done.stderr
