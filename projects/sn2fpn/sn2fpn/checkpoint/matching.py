"""Match the tensors of a file with those of a model, and report what matched."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, counted
from .compact import compact_names
from .names import without_unused_coco_ids
from .reading import Checkpoint

__all__ = ["MatchReport", "Mismatch", "check_finite", "load_weights"]


class Mismatch(NamedTuple):
    """A tensor that is not loaded because its shape differs in the model."""

    name: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.in_file} in the file, {self.in_model} in the model{self.reason}"


@dataclass
class MatchReport:
    """What happened to every tensor of a file and of a model; `str(report)` is an account to read.

    Attributes:
        path: the file.
        format: whose names the file uses.
        loaded: names in the model whose values came from the file.
        assumed: names of statistics that were set to mean 0 and variance 1 because the batch norm in the file consists
            of weight and bias only.
        missing: names in the model that the file does not have; they keep their values.
        mismatched: names in the model whose tensors have other shapes in the file; they keep their values.
        unused: names in the file that have no place in the model, with the reason.
        used: names in the file that have a place.
        class_names: names of the classes by contiguous id, as far as the file has them.
        config: the configuration of the training as YAML, "" if the file has none.
    """

    path: Path
    format: str
    loaded: set[str] = field(default_factory=set)
    assumed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    mismatched: list[Mismatch] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    class_names: list[str] = field(default_factory=list)
    config: str = ""

    @property
    def complete(self) -> bool:
        """Whether every tensor of the model got its value from the file."""
        return not self.missing and not self.mismatched

    def __str__(self) -> str:
        names = self.loaded | self.assumed | self.missing | {m.name for m in self.mismatched}
        lines = [f"{self.path} ({self.format} names):"]
        lines.append(f"  loaded {len(self.loaded)} of the model's {len(names)} tensors")
        lines += [f"    {line}" for line in compact_names(self.loaded, names)]
        if self.assumed:
            lines.append(f"  statistics set to 0 and 1 because norms in the file have none: {len(self.assumed)}")
        if self.mismatched:
            lines.append(f"  not loaded because shapes differ: {len(self.mismatched)}")
            lines += [f"    {mismatch}" for mismatch in self.mismatched]
        if self.missing:
            lines.append(f"  not in the file, so initial values are kept: {len(self.missing)}")
            lines += [f"    {line}" for line in compact_names(self.missing, names)]
        if self.unused:
            lines.append(f"  in the file but not used: {len(self.unused)}")
            names_in_file = self.used | self.unused.keys()
            for reason in dict.fromkeys(self.unused.values()):
                group = [name for name, why in self.unused.items() if why == reason]
                lines += [f"    {line} ({reason})" for line in compact_names(group, names_in_file)]
        return "\n".join(lines)


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> MatchReport:
    """Copy every tensor of a checkpoint that has a place in the model.

    A name fits if it is a name in the model, or the end of exactly one of them after a dot (`stem.conv1.weight` fits
    `backbone.bottom_up.stem.conv1.weight`). Of several names that fit, the longest wins.

    Raises:
        ArgumentError: no tensor of `checkpoint` fits, some that fit hold NaN or infinite values, or layers have a bias
            other than zero in `checkpoint` and none in the model, where no fresh norm that is trained replaces it.
    """
    state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    checkpoint = _in_names_that_fit(checkpoint, state)
    places, ambiguous = _places(state, checkpoint.model)
    report = MatchReport(checkpoint.path, checkpoint.format)
    new: dict[str, Tensor] = {}
    for name, source in places.items():
        tensor = checkpoint.model[source]
        if checkpoint.format == "torchvision" and state[name].ndim:
            tensor = without_unused_coco_ids(source, tensor, len(state[name]))
        if tensor.shape == state[name].shape:
            new[name] = tensor
        else:
            shapes = tuple(tensor.shape), tuple(state[name].shape)
            report.mismatched.append(Mismatch(name, *shapes, _shape_reason(name, *shapes)))
    if not new:
        raise ArgumentError("checkpoint", _nothing_fits(checkpoint, state, report))
    check_finite(new, checkpoint.path)
    _check_biases(places, model, checkpoint)
    report.loaded = set(new)
    for name in state.keys() - places.keys():
        module, _, kind = name.rpartition(".")
        if kind in _IDENTITY and {f"{module}.weight", f"{module}.bias"} <= report.loaded:
            new[name] = torch.full_like(state[name], _IDENTITY[kind])
            report.assumed.add(name)
        elif kind != "num_batches_tracked":  # No result depends on this counter.
            report.missing.add(name)
    sources = set(places.values())
    report.used = {checkpoint.original_names[source] for source in sources}
    for source in checkpoint.model:
        if source not in sources and not source.endswith(".num_batches_tracked"):
            original = checkpoint.original_names[source]
            report.unused[original] = _unused_reason(source, ambiguous.get(source))
    model.load_state_dict(new, strict=False)
    return report


def _in_names_that_fit(checkpoint: Checkpoint, model: Collection[str]) -> Checkpoint:
    """Return the checkpoint in the file's own names if more of these fit the model, as with a ResNet of timm."""
    originals = {checkpoint.original_names[name]: tensor for name, tensor in checkpoint.model.items()}
    if originals.keys() == checkpoint.model.keys():
        return checkpoint
    if len(_places(model, originals)[0]) <= len(_places(model, checkpoint.model)[0]):
        return checkpoint
    return replace(checkpoint, format="the model's", model=originals, original_names={name: name for name in originals})


def _check_biases(places: Mapping[str, str], model: nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse biases for which the model has no place, since it would compute other numbers without them.

    Biases of zero change nothing. A norm takes the place of a bias if it is trained and the file does not have it.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    fresh = {name.partition(".norm.")[0] for name in trained - places.keys() if ".norm." in name}
    known, dropped = model.state_dict(), []
    for name, source in places.items():
        module, _, kind = name.rpartition(".")
        bias = checkpoint.model.get(f"{source.rpartition('.')[0]}.bias") if kind == "weight" else None
        if bias is not None and f"{module}.bias" not in known and module not in fresh and bias.any():
            dropped.append(f"{module}.bias")
    if dropped:
        raise ArgumentError(
            "checkpoint",
            f"{checkpoint.path} holds biases for {counted(len(dropped), 'layer')} without a bias in the model "
            f"({dropped[0]}{', …' * (len(dropped) > 1)}), so that the model would compute other numbers than the one "
            "that was saved. Earlier versions gave the convolutions of a trunk without norms (MODEL.RESNETS.NORM '') "
            "such biases; Detectron2 does not. Use the version that wrote the file, or train again",
        )


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with which a model computes nothing but NaN.

    Args:
        tensors: the weights by their names in the model.
        path: the file that they are from.

    Raises:
        ArgumentError: some values are NaN or infinite; the message names the first tensors and counts all.
    """
    broken = {name: count for name, tensor in tensors.items() if (count := _count_not_finite(tensor))}
    if broken:
        named = [f"{name} ({n} of {tensors[name].numel()} values)" for name, n in list(broken.items())[:_NAMED]]
        more = ", …" if len(broken) > _NAMED else ""
        raise ArgumentError(
            "checkpoint",
            f"{len(broken)} of {len(tensors)} tensors of {path} hold NaN or infinite values: {', '.join(named)}{more}. "
            "The training that wrote the file has diverged, so use an earlier checkpoint",
        )


_NAMED = 3  # tensors in a message


def _count_not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point() and not tensor.is_complex():
        return 0
    wide = tensor.float() if tensor.element_size() < 2 else tensor  # torch cannot test 8-bit floats
    return int(wide.numel() - torch.isfinite(wide).sum())


_IDENTITY = {"running_mean": 0.0, "running_var": 1.0}


def _places(model: Collection[str], file: Collection[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the name in the file for names in the model, and the names in the file that fit several places."""
    places = {name: name for name in file if name in model}
    free = set(file) - places.keys()
    candidates: dict[str, list[str]] = {}
    for name in sorted(set(model) - places.keys()):
        parts = name.split(".")
        ends = (".".join(parts[i:]) for i in range(1, len(parts)))  # longest first
        source = next((end for end in ends if end in free), None)
        if source is not None:
            candidates.setdefault(source, []).append(name)
    for source, names in candidates.items():
        if len(names) == 1:
            places[names[0]] = source
    return places, {source: names for source, names in candidates.items() if len(names) > 1}


def _shape_reason(name: str, in_file: tuple[int, ...], in_model: tuple[int, ...]) -> str:
    if not in_file or not in_model or in_file[1:] != in_model[1:]:
        return ""
    if "cls_score" in name:
        return f" ({in_file[0] - 1} classes there, {in_model[0] - 1} here)"
    if "bbox_pred" in name:
        return f" (boxes for {in_file[0] // 4} classes there, {in_model[0] // 4} here)"
    return ""


def _unused_reason(name: str, several: list[str] | None) -> str:
    if several:
        return f"fits {len(several)} places: {', '.join(several[:3])}{', ...' if len(several) > 3 else ''}"
    if re.match(r"(stem\.)?(fc|fc1000|linear|pred|head|classifier)\.", name):
        return "the image classifier"
    if re.search(r"anchor_generator|^pixel_(mean|std)$", name):
        return "computed from the configuration"
    return "no such place in the model"


def _nothing_fits(checkpoint: Checkpoint, state: Collection[str], report: MatchReport) -> str:
    message = (
        f"none of the {len(checkpoint.model)} tensors of {checkpoint.path} fits the model: "
        f"the file has {', '.join(list(checkpoint.original_names.values())[:3])}, ..., "
        f"the model has {', '.join(list(state)[:3])}, ..."
    )
    if report.mismatched:
        message += f"; {report.mismatched[0]}"
    return message
