"""Detectron2's `model_zoo`: configurations by name, and the weights that Detectron2 has published for them."""

from __future__ import annotations

import re
from typing import Any

import torch

from ..checkpoint import load_trained
from ..config import CfgNode
from ..errors import UserError, did_you_mean
from ..modeling import build_model
from ..shipped import shipped_files
from .absent import absent
from .config import get_cfg

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]

__getattr__ = absent(__name__, __all__)

_DETECTRON2 = re.compile(r"(?P<group>[\w-]+)/(?P<model>\w+_rcnn)_R_(?P<depth>50|101)_FPN(_(?P<schedule>\dx))?")
_WEIGHTS = "https://dl.fbaipublicfiles.com/detectron2"
_PUBLISHED = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": "137257794/model_final_b275ba.pkl",
    "COCO-Detection/faster_rcnn_R_50_FPN_3x": "137849458/model_final_280758.pkl",
    "COCO-Detection/faster_rcnn_R_101_FPN_3x": "137851257/model_final_f6e8b1.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": "137260431/model_final_a54504.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x": "137849600/model_final_f10217.pkl",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x": "138205316/model_final_a3ec72.pkl",
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": "138602847/model_final_e9d89b.pkl",
    "Misc/cascade_mask_rcnn_R_50_FPN_3x": "144998488/model_final_480dd8.pkl",
}
"""Detectron2's names of the models with weights that fit a configuration of this package: number and file."""
_NAMES = [*_PUBLISHED, "PascalVOC-Detection/faster_rcnn_R_50_FPN"]


def get_config_file(config_path: str) -> str:
    """Return the path of a configuration file of this package.

    Args:
        config_path: a name of this package, such as "mask_rcnn_R50_sni.yaml" or
            "quick/faster_rcnn_R18_fpn_shapes.yaml", or Detectron2's name of a model that this package has too, such as
            "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml".

    Raises:
        UserError: there is no such file; the message names the nearest one.
    """
    files = {name: path for name, path in shipped_files("configs").items() if path.suffix == ".yaml"}
    path = files.get(_own_name(config_path))
    if path is None:
        own = [name for name, path in files.items() if not path.name.startswith("Base")]
        known = [f"{name}.yaml" for name in _NAMES] if "/" in config_path else []
        near = did_you_mean(config_path, [*known, *own])
        raise UserError(f"the model zoo has no configuration {config_path!r}{near}")
    return str(path)


def _own_name(config_path: str) -> str:
    """Return this package's name of a configuration."""
    found = _DETECTRON2.fullmatch(config_path.removesuffix(".yaml"))
    if found is None or found[0] not in _NAMES:
        return config_path
    folder = "voc/" if found["group"].startswith("PascalVOC") else ""
    schedule = "_3x" if found["schedule"] == "3x" else ""
    return f"{folder}{found['model']}_R{found['depth']}_fpn{schedule}.yaml"


def get_checkpoint_url(config_path: str) -> str:
    """Return the address of the weights that Detectron2 has published for a model, for `MODEL.WEIGHTS`.

    Args:
        config_path: Detectron2's name of the model, such as "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml".

    Raises:
        UserError: there are no weights of that model, or they do not fit a model of this package.
    """
    name = config_path.removesuffix(".yaml").removesuffix(".py")
    if name not in _PUBLISHED:
        raise UserError(f"the model zoo has no trained weights for {config_path!r}{did_you_mean(name, _PUBLISHED)}")
    return f"{_WEIGHTS}/{name}/{_PUBLISHED[name]}"


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """Return a configuration by name.

    Args:
        config_path: see `get_config_file`.
        trained: whether `MODEL.WEIGHTS` is the address of trained weights, see `get_checkpoint_url`.

    Raises:
        UserError: there is no such file, or there are no such weights.
    """
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(config_path))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> Any:
    """Return a model by name, in training mode.

    Args:
        config_path: see `get_config_file`.
        trained: whether the model has trained weights; otherwise they are fresh ones.
        device: the device, by default that of the configuration, or the CPU where there is no GPU.

    Raises:
        UserError: there is no such file, or there are no such weights.
    """
    cfg = get_config(config_path, trained)
    if device is not None or not torch.cuda.is_available():
        cfg.MODEL.DEVICE = device or "cpu"
    model = build_model(cfg)
    if trained:
        load_trained(model, cfg.MODEL.WEIGHTS, average=False)
    return model
