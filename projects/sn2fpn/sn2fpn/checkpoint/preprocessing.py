"""Whether a detector treats images as those were treated that its initial weights were trained on."""

from __future__ import annotations

from typing import Any

from torch import nn

from .reading import Checkpoint

__all__ = ["preprocessing_warning"]

_NARROWEST = 64  # channels of the first convolution of res2
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def preprocessing_warning(model: nn.Module, checkpoint: Checkpoint) -> str | None:
    """Return a warning with the keys to set if a detector does not fit weights of torchvision or of timm.

    Args:
        model: the detector. Other models have no preprocessing, and nothing is said about them.
        checkpoint: the weights that it starts from.

    Returns:
        The warning; None if all fits, or if it is not known what the weights expect.
    """
    if not hasattr(model, "pixel_mean") or not hasattr(model, "input_format"):
        return None
    wanted = _expected(model, checkpoint)
    found = _settings(model) if wanted else {}
    wrong = {key: value for key, value in wanted.items() if not _equal(found.get(key, value), value)}
    if not wrong:
        return None
    now = ", ".join(f"{key} {_written(found[key])}" for key in wrong)
    keys = " ".join(f"{key} {_written(value)}" for key, value in wrong.items())
    return f"{checkpoint.path} holds weights that expect other settings than the configuration's ({now}). Set {keys}"


def _expected(model: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the keys and values that suit the weights, as far as they are known."""
    trunk = _trunk(model)
    timm = getattr(getattr(trunk, "net", None), "pretrained_cfg", None)
    whole = any(name.startswith("proposal_generator.") for name in checkpoint.model)
    if timm is not None and not whole:
        mean, std = timm["mean"], timm["std"]
    elif checkpoint.format == "torchvision" and not _is_narrow(trunk):
        mean, std = _IMAGENET
    else:
        return {}
    wanted: dict[str, Any] = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * value, 3) for value in mean],
        "MODEL.PIXEL_STD": [round(255 * value, 3) for value in std],
    }
    if timm is None:
        wanted["MODEL.RESNETS.STRIDE_IN_1X1"] = False
    if timm is None and whole:  # torchvision's detectors pool in the older way.
        for head in ("BOX", "MASK"):
            wanted |= {f"MODEL.ROI_{head}_HEAD.POOLER_TYPE": "ROIAlign"}
            wanted |= {f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO": 2}
    return wanted


def _trunk(model: Any) -> Any:
    return getattr(getattr(model, "backbone", None), "bottom_up", None)


def _first_block(trunk: Any, stage: str) -> Any:
    """Return the first block of a ResNet's stage, or None for a trunk that is built in another way."""
    blocks = getattr(trunk, stage, None)
    return blocks[0] if isinstance(blocks, nn.Sequential) and len(blocks) else None


def _is_narrow(trunk: Any) -> bool:
    """Return whether a ResNet is narrower than all of torchvision, so that only the names of its weights are theirs."""
    conv = getattr(_first_block(trunk, "res2"), "conv1", None)
    return isinstance(conv, nn.Conv2d) and conv.weight.shape[0] < _NARROWEST


def _settings(model: Any) -> dict[str, Any]:
    """Return the values that a detector was built with by their keys, as far as it has them."""
    found: dict[str, Any] = {
        "INPUT.FORMAT": model.input_format,
        "MODEL.PIXEL_MEAN": model.pixel_mean.flatten().tolist(),
        "MODEL.PIXEL_STD": model.pixel_std.flatten().tolist(),
    }
    block = _first_block(_trunk(model), "res3")
    conv = getattr(block, "conv1", None)
    if hasattr(block, "conv3") and isinstance(conv, nn.Conv2d):  # only a block with a bottleneck has the choice
        found["MODEL.RESNETS.STRIDE_IN_1X1"] = conv.stride != (1, 1)
    for head in ("box", "mask"):
        pooler = getattr(getattr(model, "roi_heads", None), f"{head}_pooler", None)
        if pooler is not None:
            group = f"MODEL.ROI_{head.upper()}_HEAD"
            found[f"{group}.POOLER_TYPE"] = "ROIAlignV2" if pooler.aligned else "ROIAlign"
            found[f"{group}.POOLER_SAMPLING_RATIO"] = pooler.sampling_ratio
    return found


def _equal(a: Any, b: Any) -> bool:
    if isinstance(b, list):
        return len(a) == len(b) and all(abs(x - y) < 0.01 * abs(y) + 1e-3 for x, y in zip(a, b))
    return bool(a == b)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return '"[' + ", ".join(f"{v:.6g}" for v in value) + ']"'
    return str(value)
