"""Names of pretrained weights in torchvision and timm, and where their files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ArgumentError, did_you_mean

__all__ = ["fetch_timm", "torchvision_url"]


def torchvision_url(name: str) -> str:
    """Return the address of weights of torchvision, whose last part ends with the first digits of their SHA-256.

    Args:
        name: for instance "ResNet50_Weights.IMAGENET1K_V2".

    Raises:
        ArgumentError: there are no such weights.
    """
    from torchvision import models

    try:
        return str(models.get_weight(name).url)
    except (ValueError, KeyError, AttributeError, TypeError):
        known = [str(weights) for model in models.list_models() for weights in models.get_model_weights(model)]
        hint = did_you_mean(name, known) or ", such as ResNet50_Weights.IMAGENET1K_V2"
        raise ArgumentError("path", f"torchvision has no weights {name!r}{hint}") from None


def fetch_timm(name: str) -> Path:
    """Return the local file of the pretrained weights of a model of timm, which huggingface_hub fetches and keeps.

    Args:
        name: the name of the model, perhaps with the tag of its weights: "convnext_tiny" or "convnext_tiny.fb_in1k".

    Raises:
        ArgumentError: timm is not installed, there is no such model, it has no weights on the hub, or these cannot be
            fetched.
    """
    timm = _import("timm")
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        known = [*timm.list_models(), *timm.list_pretrained()]
        hint = did_you_mean(name, known) or "; timm.list_pretrained() lists the names"
        raise ArgumentError("path", f"timm {timm.__version__} has no pretrained model {name!r}{hint}") from None
    if not config.hf_hub_id:
        where = f"; download {config.url} and give the local file" if config.url else ""
        raise ArgumentError("path", f"timm's hub has no weights for {name!r}{where}")
    return _fetch_from_hub(config)


def _fetch_from_hub(config: Any) -> Path:
    hub = _import("huggingface_hub")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    error: Exception | None = None
    for name in names:
        try:
            return Path(hub.hf_hub_download(config.hf_hub_id, name))
        except Exception as e:  # The hub's errors have no common class of their own.
            error = error or e
    reason = str(error).strip().split("\n")[0]
    raise ArgumentError(
        "path",
        f"cannot fetch {names[0]} of {config.hf_hub_id}: {reason}. "
        "Download the file by other means and give the local file instead",
    )


def _import(module: str) -> Any:
    try:
        return __import__(module)
    except ImportError as error:
        raise ArgumentError("path", f"timm:// names need timm ({error}); type: pip install 'sn2fpn[timm]'") from None
