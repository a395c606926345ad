"""Tests of examples/balls.py: it runs on this package, and on Detectron2 after a change of its import lines only."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "balls.py"
_IMPORT = re.compile(r"^(?:from|import) sn2fpn\.compat\b", re.MULTILINE)


def test_the_guide_shows_the_script_and_names_what_exists() -> None:
    guide = (SCRIPT.parents[1] / "docs" / "from_detectron2.md").read_text(encoding="utf-8")
    assert f"```python\n{SCRIPT.read_text(encoding='utf-8')}```" in guide
    table = guide.partition("## What is offered")[2].partition("## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", table, re.MULTILINE)
    assert len(rows) == 15
    for module, cells in rows:
        for name in re.findall(r"`([\w.]+)`", cells):
            found = importlib.import_module(f"sn2fpn.compat.{module}")
            for part in name.split("."):
                found = getattr(found, part)


def test_the_command_of_the_guide_changes_the_import_lines(tmp_path: Path) -> None:
    guide = (SCRIPT.parents[1] / "docs" / "from_detectron2.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    (sed .*) my_script\.py$", guide, re.MULTILINE)
    script = tmp_path / "my_script.py"
    script.write_text(
        "import detectron2\nimport detectron2.data.transforms as T\nfrom detectron2 import model_zoo\n"
        "    from detectron2.config import get_cfg  # detectron2\nprint(detectron2.__version__)\n"
    )
    subprocess.run([*shlex.split(command), str(script)], check=True)
    assert script.read_text() == (
        "import sn2fpn.compat as detectron2\nimport sn2fpn.compat.data.transforms as T\n"
        "from sn2fpn.compat import model_zoo\n"
        "    from sn2fpn.compat.config import get_cfg  # detectron2\nprint(detectron2.__version__)\n"
    )


def _for_detectron2(folder: Path) -> Path:
    """Write the script with other import lines, and check that nothing else of this package is in it."""
    text = SCRIPT.read_text(encoding="utf-8")
    body = text.partition('"""')[2].partition('"""')[2]
    changed = _IMPORT.sub(lambda m: m[0].replace("sn2fpn.compat", "detectron2"), body)
    assert "sn2fpn" not in changed and len(_IMPORT.findall(body)) == 8
    path = folder / "balls_detectron2.py"
    path.write_text(changed, encoding="utf-8")
    return path


def _run(script: Path, output: Path) -> dict[str, Any]:
    namespace = runpy.run_path(str(script), run_name="script")
    return {"results": namespace["main"](output), **namespace}


def _check(output: Path, results: dict[str, Any]) -> None:
    assert results["bbox"]["AP50"] > 60 and results["segm"]["AP50"] > 60
    for name in ("annotated_0", "annotated_2", "predicted_0", "predicted_2"):
        picture = cv2.imread(str(output / f"{name}.png"))
        assert picture.shape == (256, 256, 3)
    gray = (picture == picture[:, :, :1]).all(axis=2).mean()
    assert 0.5 < gray < 1  # the background is gray, the balls are not


@pytest.mark.slow
def test_it_runs_on_this_package(tmp_path: Path) -> None:
    _check(tmp_path, _run(SCRIPT, tmp_path)["results"])


@pytest.mark.slow
@pytest.mark.detectron2
def test_only_the_import_lines_differ_for_detectron2(tmp_path: Path) -> None:
    engine = pytest.importorskip("detectron2.engine", reason="Detectron2 is not installed")
    importlib.import_module("detectron2.utils.env").seed_all_rng(1)  # their trainer does not read SEED
    theirs = _run(_for_detectron2(tmp_path), tmp_path / "theirs")
    _check(tmp_path / "theirs", theirs["results"])
    ours = _run(SCRIPT, tmp_path / "ours")

    # Each predictor reads the weights that this package has trained, and finds the same.
    cfgs = [script["configuration"](tmp_path / "ours") for script in (ours, theirs)]
    for cfg in cfgs:
        cfg.MODEL.WEIGHTS = str(tmp_path / "ours" / "model_final.pth")
    predictors = ours["DefaultPredictor"](cfgs[0]), engine.DefaultPredictor(cfgs[1])
    for path in sorted((tmp_path / "ours" / "balls_val").glob("*.png"))[:8]:
        found, expected = (predictor(cv2.imread(str(path)))["instances"] for predictor in predictors)
        assert found.pred_classes.tolist() == expected.pred_classes.tolist()
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=5e-3, rtol=0)
        torch.testing.assert_close(found.scores, expected.scores, atol=5e-5, rtol=0)
        assert np.mean(found.pred_masks.numpy() != expected.pred_masks.numpy()) < 1e-4
