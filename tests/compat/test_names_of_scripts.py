"""Tests of the names: all that is promised can be imported, what is not offered says what to use, as in Detectron2."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sn2fpn.compat
from sn2fpn.compat.advice import ADVICE
from sn2fpn.compat.advice import MODULES as ABSENT_MODULES
from sn2fpn.data import DatasetCatalog, MetadataCatalog

_FOLDER = Path(sn2fpn.compat.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(_FOLDER).with_suffix("").parts).removesuffix("__init__").rstrip(".")
    for path in _FOLDER.rglob("*.py")
)


def _module(name: str, root: str = "sn2fpn.compat") -> Any:
    return importlib.import_module(f"{root}.{name}" if name else root)


def _names() -> Iterator[tuple[str, str]]:
    for module in MODULES:
        if module not in ("absent", "advice"):
            yield from ((module, name) for name in _module(module).__all__)


@pytest.mark.parametrize("module", MODULES)
def test_all_that_is_listed_can_be_imported(module: str) -> None:
    for name in _module(module).__all__:
        assert getattr(_module(module), name) is not None


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module: str) -> None:
    options = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    assert doctest.testmod(_module(module), optionflags=options).failed == 0


@pytest.mark.parametrize("module", [m for m in MODULES if hasattr(_module(m), "__getattr__")])
def test_what_is_not_offered_says_what_to_use(module: str) -> None:
    path = f"sn2fpn.compat.{module}".rstrip(".")
    with pytest.raises(ImportError, match=rf"^{re.escape(path)} does not offer RotatedBoxes: rotated boxes are not"):
        exec(f"from {path} import RotatedBoxes")
    with pytest.raises(ImportError, match="does not offer SimpleTrainer: the loop is that of DefaultTrainer"):
        _module(module).SimpleTrainer  # noqa: B018
    first = _module(module).__all__[0]
    with pytest.raises(ImportError, match=f"does not offer {first}x; did you mean '{first}'?"):
        getattr(_module(module), f"{first}x")
    assert not hasattr(_module(module), "_private")


def test_no_advice_is_given_for_a_name_that_is_offered() -> None:
    offered = {name for _, name in _names()}
    assert not offered & ADVICE.keys()
    for sentence in set(ADVICE.values()):  # what it names exists
        for dotted in re.findall(r"sn2fpn(?:\.\w+)+", sentence):
            *parent, last = dotted.split(".")
            assert hasattr(importlib.import_module(".".join(parent)), last) or importlib.import_module(dotted)


def _refusal(statement: str) -> ModuleNotFoundError:
    """Return the error of an import of a module that is not offered."""
    with pytest.raises(ModuleNotFoundError) as e:
        exec(statement)
    return e.value


@pytest.mark.parametrize("module", ABSENT_MODULES)
def test_modules_that_are_not_offered_say_where_their_names_are(module: str) -> None:
    parent, _, leaf = f"sn2fpn.compat.{module}".rpartition(".")
    start = f"{parent} does not offer the module {leaf}: "
    for statement in (f"import sn2fpn.compat.{module}", f"from sn2fpn.compat.{module} import something"):
        error = _refusal(statement)
        assert str(error).startswith(start) and error.name == f"sn2fpn.compat.{module}"
    offered = importlib.import_module(parent).__all__
    if leaf not in offered:  # as `nms` is, which is a module and a function
        assert str(_refusal(f"from {parent} import {leaf}")) == str(error)
    for name in ABSENT_MODULES[module].split():
        assert re.search(rf"\b{name}\b", str(error)) and (name in offered or ADVICE[name] in str(error))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("utils.file_io", "PathHandler, PathManager: paths are plain ones"),
        (
            "solver.build",
            "sn2fpn.compat.solver has build_lr_scheduler, build_optimizer; get_default_optimizer_params: ",
        ),
        ("modeling.backbone.fpn", "sn2fpn.compat.modeling has FPN, build_backbone; BACKBONE_REGISTRY: "),
        ("tracking", "sn2fpn.compat does not offer the module tracking: this model is not served"),
        ("modelling", "sn2fpn.compat does not offer the module modelling; did you mean 'modeling'?"),
        ("utils.develop", "utils does not offer the module develop; the page 'Scripts of Detectron2 users' lists what"),
        ("solver.nothing", "solver does not offer the module nothing; the page 'Scripts of Detectron2 users' lists"),
    ],
)
def test_other_modules_are_answered_with_the_nearest_one_or_the_page(module: str, words: str) -> None:
    assert words in str(_refusal(f"import sn2fpn.compat.{module}"))


def test_what_python_and_its_tools_look_for_by_themselves_is_just_not_there() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'sn2fpn\.compat\.__main__'$"):
        importlib.import_module("sn2fpn.compat.__main__")
    with pytest.raises(ImportError, match="cannot import name '_private'"):
        exec("from sn2fpn.compat.solver import _private")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'sn2fpn\.compatible'$"):
        importlib.import_module("sn2fpn.compatible")


@pytest.mark.detectron2
@pytest.mark.parametrize("module", ABSENT_MODULES)
def test_detectron2_has_the_modules_that_are_not_offered(module: str) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    theirs = importlib.import_module(f"detectron2.{module}")
    assert [name for name in ABSENT_MODULES[module].split() if not hasattr(theirs, name)] == []


def test_the_package_can_stand_for_detectron2() -> None:
    import sn2fpn.compat as detectron2

    assert detectron2.__version__ == sn2fpn.__version__
    assert detectron2.utils.logger.setup_logger and detectron2.data.transforms.RandomFlip


def test_catalogs_can_be_listed_and_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    DatasetCatalog.register("listed", lambda: [])
    MetadataCatalog.get("listed").set(thing_classes=["a"])
    assert "listed" in DatasetCatalog.list() and "listed" in MetadataCatalog.list() and "listed" in MetadataCatalog
    function = DatasetCatalog.pop("listed")
    assert "listed" not in DatasetCatalog and MetadataCatalog.get("listed").thing_classes == ["a"]
    DatasetCatalog.register("listed", function)
    DatasetCatalog.remove("listed")
    assert "listed" not in DatasetCatalog.list() and "listed" not in MetadataCatalog
    for catalog, what in ((DatasetCatalog, "unknown data set"), (MetadataCatalog, "no metadata of data set")):
        with pytest.raises(ValueError, match=f"{what} 'coco_2017_trian'.*did you mean 'coco_2017_train'?"):
            catalog.pop("coco_2017_trian")
    for catalog in (DatasetCatalog, MetadataCatalog):  # both at first: without data sets, there is no metadata of them
        monkeypatch.setattr(catalog, "_entries", dict(catalog._entries))
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.clear()
        assert catalog.list() == []


_OWN = {"History", "PerImageSeed", "BILINEAR", "check_interp", "absent", "ScriptRecipe"}
"""Names that only this package has; scripts of Detectron2 cannot ask for them."""
_FROM = {  # where Detectron2 has what stands elsewhere here
    "Checkpointer": "fvcore.common.checkpoint",
    "CfgNode": "fvcore.common.config",
    **dict.fromkeys(("BlendTransform", "CropTransform", "HFlipTransform", "NoOpTransform"), "fvcore.transforms"),
    **dict.fromkeys(("Transform", "TransformList", "VFlipTransform"), "fvcore.transforms.transform"),
    "ShapeSpec": "detectron2.layers",
    "polygons_to_bitmask": "detectron2.structures.masks",
    **dict.fromkeys(("CallbackHook", "EvalHook"), "detectron2.engine.hooks"),
    **dict.fromkeys(("RPN", "build_proposal_generator"), "detectron2.modeling.proposal_generator"),
    **dict.fromkeys(("Box2BoxTransform",), "detectron2.modeling.box_regression"),
    "CascadeROIHeads": "detectron2.modeling.roi_heads",
    "DefaultAnchorGenerator": "detectron2.modeling.anchor_generator",
    "Matcher": "detectron2.modeling.matcher",
    "ROIPooler": "detectron2.modeling.poolers",
    "CLASS_NAMES": "detectron2.data.datasets.pascal_voc",
    "load_voc_instances": "detectron2.data.datasets.pascal_voc",
    "HookBase": "detectron2.engine",
    "DefaultPredictor": "detectron2.engine",
    **dict.fromkeys(("DatasetCatalog", "Metadata", "MetadataCatalog"), "detectron2.data.catalog"),
    "apply_augmentations": "detectron2.data.transforms",
    "RandomApply": "detectron2.data.transforms",
    "ResizeTransform": "detectron2.data.transforms",
    **dict.fromkeys(("ColorTransform", "PILColorTransform"), "detectron2.data.transforms"),
    "get_detection_dataset_dicts": "detectron2.data",
    "pairwise_intersection": "detectron2.structures.boxes",
}
_WITH_PARTS = {"RPN", "CascadeROIHeads", "GeneralizedRCNN", "StandardROIHeads", "FPN", "Checkpointer", "CfgNode"}
"""Classes that are built from other parts than Detectron2's, by `build_*` functions with Detectron2's arguments."""
_DIFFERENT = {
    "Conv2d": "Detectron2's has no names for its arguments",
    "LRMultiplier": "the iteration to start from is part of its state",
    "Metadata": "Detectron2's has no signature",
    "PascalVOCDetectionEvaluator": "the metric and the folder can be chosen",
    "SizeMismatchError": "an exception",
    "all_gather": "the groups of processes are this package's",
    "batched_nms": "the groups are called so",
    "build_detection_test_loader": "it also takes a configuration, which Detectron2's signature does not show",
    "build_detection_train_loader": "it also takes a configuration, which Detectron2's signature does not show",
    "build_proposal_generator": "there are several shapes",
    "build_roi_heads": "there are several shapes",
    "gather": "the groups of processes are this package's",
    "get_norm": "the channels are called so",
    "instantiate": "the configuration is called so",
    "launch": "a device can be given",
    "load_coco_json": "files outside of the folder can be allowed",
    "load_voc_instances": "files outside of the folder can be allowed",
    "register_coco_instances": "files outside of the folder can be allowed",
    "register_pascal_voc": "files outside of the folder can be allowed",
}
"""Names with other arguments than Detectron2's, and why. They need no more arguments than Detectron2's."""


@pytest.mark.detectron2
@pytest.mark.parametrize(("module", "name"), list(_names()), ids=lambda x: x or "root")
def test_detectron2_has_the_name_and_its_arguments(module: str, name: str) -> None:
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    if name in _OWN:
        return
    ours = getattr(_module(module), name)
    where = _FROM.get(name, f"detectron2.{module}".rstrip("."))
    theirs = getattr(importlib.import_module(where), name, None) or importlib.import_module(f"{where}.{name}")
    if inspect.ismodule(ours) or not callable(ours) or name in _WITH_PARTS:
        return
    if name in _DIFFERENT:
        if name not in ("Conv2d", "Metadata", "SizeMismatchError"):
            assert len(_required(ours)) <= len(_required(theirs))
        return
    found, expected = list(_arguments(ours)), list(_arguments(theirs))
    assert [a for a in found if a in expected] == [a for a in expected if a in found], "in the same order"
    assert set(found) == set(expected)


def _arguments(obj: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments by name, without those that take any."""
    parameters = inspect.signature(obj).parameters.items()
    return {name: p for name, p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _required(obj: Any) -> list[str]:
    return [name for name, p in _arguments(obj).items() if p.default is p.empty]
