"""The pyramids by name, and the rule that turns configuration groups into arguments of a pyramid's class."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import nn

from ..errors import ArgumentError, UserError, argument_names, did_you_mean
from ..layers import get_norm
from ..registry import Registry
from ..signatures import keyword_parameters
from ..structures import ShapeSpec
from .base import Pyramid

__all__ = [
    "PYRAMIDS",
    "PyramidBuilder",
    "backbone_names",
    "overridden_keys",
    "pyramid_from_backbone_name",
    "register_pyramid",
    "unread_groups",
]

PyramidBuilder = Callable[[Any, Mapping[str, ShapeSpec]], Pyramid]
T = TypeVar("T", bound=Callable[..., Pyramid])

PYRAMIDS = Registry("pyramid")
"""Short name ("sni") -> `build(cfg, input_shape) -> Pyramid`, where `input_shape` describes the trunk's maps."""

_DEFAULTS = {"UPSAMPLE": "nearest", "FUSE_TYPE": "sum"}  # of the keys of MODEL.FPN that some pyramids do not read


def register_pyramid(
    name: str, *, group: str | None = None, renames: Mapping[str, str] | None = None, **settings: Any
) -> Callable[[T], T]:
    """Return a decorator that registers a pyramid, so that `MODEL.BACKBONE.NAME` "build_sn2_<name>_backbone" builds it.

    The decorated object is a class, or a function `build(cfg, input_shape, **settings)`. A class is built from
    `MODEL.FPN` and from a group of its own, `MODEL.<NAME>`, if the configuration has that one. A key becomes
    the argument of the same name in lower case: each key of `MODEL.FPN` that the class takes, and all keys of its own
    group, which come second. `UPSAMPLE` is read from the class's own group if there is one. `NORM_EPS` and
    `NORM_MOMENTUM` belong to the `NORM` of their group and make one argument with it. A value of None leaves the
    default of the class.

    A class without a group of its own shares that of the registered class which it is or extends. So a variant under a
    second name, `register_pyramid("bifpn5", num_cells=5)(BiFPN)`, differs from the original in its settings alone.

    Args:
        name: short name of the pyramid, made of letters, digits and underscores, which does not end in "_retinanet".
        group: name of its own group, when it is not the name in capital letters.
        renames: argument for each key of its own group whose argument has another name.
        settings: arguments with fixed values, e.g. for a variant that is registered under a second name.

    Raises:
        ArgumentError: the name is taken or not valid; or, in the decorator, the object is neither a class of pyramids
            nor a function, the class has no data flow, or an argument in `settings` or `renames` does not exist.

    Example:
        >>> from sn2fpn.pyramids import FPN, PYRAMIDS, register_pyramid
        >>> _ = register_pyramid("fpn_bilinear", upsample="bilinear")(FPN)
        >>> "fpn_bilinear" in PYRAMIDS
        True
        >>> PYRAMIDS.remove("fpn_bilinear")
    """

    if not isinstance(name, str) or not re.fullmatch(r"\w+", name) or name.endswith("_retinanet"):
        problem = "letters, digits and underscores, not ending in '_retinanet'"
        raise ArgumentError("name", f"expected a name of {problem}, as in @register_pyramid('mine'); found {name!r}")

    def register(target: T) -> T:
        _check_target(target, {**settings, **dict.fromkeys((renames or {}).values())})
        if inspect.isclass(target):
            own = _Group(group or name.upper(), dict(renames or {}))
            build = _FromConfiguration(name, target, own, _group_of_original(target) or own, settings)
        else:
            build = partial(target, **settings) if settings else target
        PYRAMIDS.register(name, build)
        return target

    return register


def _check_target(target: Any, arguments: Iterable[str]) -> None:
    """Check what is registered as a pyramid, and that it takes the arguments that the registration names."""
    if not callable(target) or isinstance(target, nn.Module):
        raise ArgumentError("target", f"expected a class of pyramids or a function, found {type(target).__name__}")
    name = getattr(target, "__qualname__", repr(target))
    if inspect.isclass(target) and not issubclass(target, nn.Module):
        raise ArgumentError("target", f"expected a subclass of Pyramid, found {name}")
    if getattr(target, "fuse", None) is Pyramid.fuse and target.forward is Pyramid.forward:
        raise ArgumentError("target", f"{name} has no method `fuse`, which computes the outputs of a pyramid")
    takes = keyword_parameters(target)
    for argument in arguments:
        if takes and argument not in takes:
            raise ArgumentError(argument, f"{name} takes no such argument{did_you_mean(argument, takes)}")


def backbone_names() -> dict[str, PyramidBuilder]:
    """Return the values that `MODEL.BACKBONE.NAME` may have, with the builder that each stands for.

    For each pyramid these are "build_sn2_<pyramid>_backbone", with p6, and "build_sn2_<pyramid>_retinanet_backbone",
    with p6 and p7 as `add_p6_p7` of the pyramid makes them. Detectron2's two names for FPN follow.
    """
    names: dict[str, PyramidBuilder] = {}
    for name in PYRAMIDS:
        build = PYRAMIDS.get(name)
        names[f"build_sn2_{name}_backbone"] = build
        names[f"build_sn2_{name}_retinanet_backbone"] = partial(_build_with_p6_p7, build)
    names["build_resnet_fpn_backbone"] = names["build_sn2_fpn_backbone"]
    names["build_retinanet_resnet_fpn_backbone"] = names["build_sn2_fpn_retinanet_backbone"]
    return names


def pyramid_from_backbone_name(backbone_name: str) -> PyramidBuilder:
    """Return the builder that a `MODEL.BACKBONE.NAME` stands for (see `backbone_names`).

    Raises:
        UserError: there is no pyramid of that name.
    """
    known = backbone_names()
    if backbone_name not in known:
        hint = f"{did_you_mean(backbone_name, known)} (--import names the file of a pyramid of your own)"
        short = re.fullmatch(r"\w+", backbone_name) and f"build_sn2_{backbone_name.lower()}_backbone"
        if short in known:
            hint = f"; did you mean {short!r}?"
        if backbone_name == "build_resnet_backbone":
            only = "a model without a pyramid (C4, DC5) is served by Detectron2 only, see --engine detectron2"
            hint = f"; {only}; the pyramid FPN is 'build_resnet_fpn_backbone'"
        raise UserError(f"MODEL.BACKBONE.NAME: unknown backbone {backbone_name!r}{hint}")
    return known[backbone_name]


def unread_groups(backbone_name: str) -> set[str]:
    """Return the groups of `MODEL` that belong to other pyramids than the one that a `MODEL.BACKBONE.NAME` stands for.

    There are none for a pyramid that is built by a function, which may read any group.
    """
    build = _class_builder(backbone_name)
    return {b.own.name for b in _classes()} - {build.own.name, build.original.name, "FPN"} if build else set()


def overridden_keys(cfg: Any) -> dict[str, str]:
    """Return the keys of `MODEL.FPN` that the pyramid of a configuration does not read, with its own keys for them."""
    build = _class_builder(cfg.MODEL.BACKBONE.NAME)
    group = build and build.group(cfg)
    if not group or group.name == "FPN":
        return {}
    own = {group.renames.get(key, key.lower()): f"MODEL.{group.name}.{key}" for key in cfg.MODEL.get(group.name, {})}
    return {f"MODEL.FPN.{key}": own[key.lower()] for key in cfg.MODEL.FPN if key.lower() in own}


def _class_builder(backbone_name: str) -> _FromConfiguration | None:
    """Return the builder that a `MODEL.BACKBONE.NAME` stands for, if it builds a class from the configuration."""
    build = backbone_names().get(backbone_name)
    if isinstance(build, partial) and build.func is _build_with_p6_p7:
        build = build.args[0]
    return build if isinstance(build, _FromConfiguration) else None


@dataclass(frozen=True)
class _Group:
    """A group of `MODEL`, with the argument for each key whose argument has another name."""

    name: str
    renames: Mapping[str, str]


@dataclass(frozen=True)
class _FromConfiguration:
    """Builds a pyramid's class from the configuration, by the rule that `register_pyramid` describes."""

    name: str
    cls: type[Pyramid]
    own: _Group
    original: _Group  # of the registered class that `cls` is or extends, for a configuration without the group `own`
    settings: Mapping[str, Any]

    def group(self, cfg: Any) -> _Group:
        """Return the group of the configuration that the class is built from, beside `MODEL.FPN`."""
        return self.own if self.own.name in cfg.MODEL else self.original

    def __call__(self, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> Pyramid:
        """Build the pyramid on a trunk whose maps `input_shape` describes.

        Raises:
            UserError: a value that the class refuses, under the name of its key, or a key that it would ignore.
        """
        group = self.group(cfg)
        shared, own = cfg.MODEL.FPN, {} if group.name == "FPN" else cfg.MODEL.get(group.name, {})
        parameters = keyword_parameters(self.cls)
        takes = parameters.keys() - self.settings.keys() - ({"upsample"} if own else set())
        for key, default in _DEFAULTS.items():
            if key.lower() not in takes and (found := shared.get(key, default)) != default:
                advice = f"set MODEL.{group.name}.{key} instead" if key in own else f"leave it at {default!r}"
                raise UserError(
                    f"MODEL.FPN.{key}: the pyramid {self.name!r} does not read this key, found {found!r}; {advice}"
                )
        read = {key.lower(): (f"MODEL.FPN.{key}", value) for key, value in shared.items() if key.lower() in takes}
        for key, value in _with_whole_norm(own).items():
            argument = group.renames.get(key, key.lower())
            if group is self.own or argument in parameters:  # a class may fix what the class that it extends takes
                read[argument] = f"MODEL.{group.name}.{key}", value
        arguments = {argument: value for argument, (_, value) in read.items() if value is not None}
        keys = {argument: key for argument, (key, _) in read.items()}
        with argument_names({"input_shape": "MODEL.RESNETS.OUT_FEATURES"} | keys):
            return self.cls(input_shape, **{**arguments, **self.settings})


def _classes() -> list[_FromConfiguration]:
    """Return the builders of all registered classes, in the order of their registration."""
    return [b for b in (PYRAMIDS.get(name) for name in PYRAMIDS) if isinstance(b, _FromConfiguration)]


def _group_of_original(target: type[Pyramid]) -> _Group | None:
    """Return the group of the first registration of the nearest class that a class is or extends."""
    groups = {b.cls: b.own for b in reversed(_classes())}  # of several registrations of a class, the first one counts
    return next((groups[cls] for cls in target.__mro__ if cls in groups), None)


def _with_whole_norm(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's values with NORM, NORM_EPS and NORM_MOMENTUM joined to one way of making norms."""
    values = dict(group)
    if "NORM_EPS" in values:
        eps, momentum = values.pop("NORM_EPS"), values.pop("NORM_MOMENTUM")
        values["NORM"] = partial(get_norm, values["NORM"], eps=eps, momentum=momentum)
    return values


def _build_with_p6_p7(build: PyramidBuilder, cfg: Any, input_shape: Mapping[str, ShapeSpec]) -> Pyramid:
    pyramid = build(cfg, input_shape)
    with argument_names({"source": "MODEL.FPN.IN_FEATURES"}):
        pyramid.add_p6_p7()
    return pyramid
