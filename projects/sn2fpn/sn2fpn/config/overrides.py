"""`key=value` changes to a Python configuration. They are checked against what it holds and what its targets take.

train.max_iter=50                     an existing key
model.backbone.norm=BN                an argument that the node's target takes, even if the file does not list it
lr_multiplier.scheduler.steps=[30,40] lists and mappings as YAML writes them; ${train.max_iter} refers to a key
dataloader.train.mapper.augmentations.0.max_size=600   an item of a list, by its number
dataloader.custom={my_train: {IMAGES: a, ANNOTATIONS: b}}   data sets of your own by name, or a list of them
+train.note=hello                     any new key
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ..errors import UserError, counted
from ..signatures import fits, keyword_parameters, type_words
from .calls import TARGET, full_key, is_list, omegaconf_errors, target_of
from .own_sets import QUOTES, named_entries
from .unknown import nearest_key
from .yaml_limits import check_yaml

__all__ = ["apply_overrides"]

_DEEPEST = 50  # parts of a key
_OWN_SETS = ["dataloader", "custom"]  # the key of a user's own data sets, which is DATASETS.CUSTOM in YAML


def apply_overrides(
    cfg: DictConfig, overrides: Iterable[str], counterparts: Mapping[str, str] | None = None
) -> DictConfig:
    """Apply changes in order and in place, and return `cfg`; the module's text shows their forms.

    A mapping is merged key by key. A value must suit the annotation of the argument that it is for; without an
    annotation it must be of the type of the present value, and an integer may replace a float.

    Args:
        cfg: the configuration.
        overrides: the changes.
        counterparts: the keys of this configuration that stand for keys of YAML configurations, for messages.

    Raises:
        UserError: a text without `=`, an unknown key, for which the nearest one is named, a key of YAML configurations,
            for which its counterpart is named, or a value of a wrong type.
    """
    texts = list(overrides)
    for text, following in zip(texts, [*texts[1:], ""]):
        key, equals, value = text.partition("=")
        path = re.findall(r"[^.\[\]]+", key.lstrip("+"))
        try:
            if path and path[0].isupper() and path[0] not in cfg and not key.startswith("+"):
                raise _of_yaml(cfg, key, value if equals else following, counterparts or {})
            if not equals or not 0 < len(path) <= _DEEPEST:
                example = f"e.g. train.max_iter=50; found {text!r}"
                if following and "=" not in text + following:
                    example = f"write {text}={following} instead of {text} {following}"
                raise UserError(f"a .py config is changed by key=value, {example}")
            parsed = _parse(text, value)
            if path == _OWN_SETS:
                parsed = named_entries(parsed, key)
            _set(cfg, path, parsed, add=key.startswith("+"))
        except UserError as e:
            raise UserError(f"command line: {e}") from e
    return cfg


def _of_yaml(cfg: DictConfig, key: str, value: str, counterparts: Mapping[str, str]) -> UserError:
    """Return the error for a key of YAML configurations, whose groups have names in capitals."""
    own = counterparts.get(key)
    advice = f"write {own}={value}" if own else f"the groups of this one are {', '.join(sorted(map(str, cfg)))}"
    return UserError(
        f"{key} is a key of YAML configurations. A Python configuration has keys of its own, which are set by "
        f"key=value; {advice}"
    )


def _parse(text: str, value: str) -> Any:
    try:  # an empty value is an empty text, as in a shell, where YAML would read null
        check_yaml(value)
        with omegaconf_errors(""):
            return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"] if value else ""
    except (yaml.YAMLError, UserError) as e:
        advice = f"; {QUOTES}" if value.startswith(("{", "[")) else ""
        raise UserError(f"{text!r}: the value is not readable as YAML: {str(e).splitlines()[0]}{advice}") from None


def _set(node: Any, path: list[str], value: Any, add: bool) -> None:
    """Set the value at a path below a node, and check its type."""
    part, *rest = path
    key = int(part) if is_list(node) and re.fullmatch(r"-?\d+", part) else part
    old = _get(node, key, rest, add)
    if rest:
        if old is None and add:
            node[key] = {}
            old = node[key]
        _set(old, rest, value, add)
    elif isinstance(value, dict) and isinstance(old, DictConfig):
        for name, item in value.items():
            _set(old, [str(name)], item, add)
    else:
        try:
            OmegaConf.update(node, str(key), value, merge=False)
        except TypeError:
            raise UserError(f"{full_key(node)} is a tuple, whose items cannot be changed; set all of it") from None
        _check_type(node, key, old)


def _get(node: Any, key: str | int, rest: list[str], add: bool) -> Any:
    """Return what a node holds at a key, or None for an argument that it does not list.

    Raises:
        UserError: there is no such key, or its value has no keys although `rest` follows.
    """
    name = full_key(node, key)
    whole = ".".join([name, *rest])
    if is_list(node):
        if not isinstance(key, int) or not -len(node) <= key < len(node):
            items = counted(len(node), "item")
            raise UserError(f"{full_key(node)} is a list of {items}, so there is no item {str(key)!r}")
    elif key not in node and not add and key not in (arguments := _arguments(node)):
        elsewhere = [found for found in _full_keys(node._get_root()) if found.rpartition(".")[2] == str(key)]
        if len(elsewhere) == 1:
            near = f"; did you mean {elsewhere[0]!r}?"
        else:
            prefix = name.removesuffix(str(key))
            below = [found.removeprefix(prefix) for found in _full_keys(node)]
            near = nearest_key(".".join([str(key), *rest]), [*below, *arguments], {*node, *arguments}, prefix)
        raise UserError(f"unknown config key {whole!r}{near}")
    with omegaconf_errors(name):
        value = node[key] if is_list(node) or key in node else None
    if rest and not OmegaConf.is_config(value) and not (value is None and add):
        raise UserError(f"unknown config key {whole!r}: {name} holds {value!r}")
    return value


def _full_keys(node: Any) -> Iterator[str]:
    """Yield the full keys of a configuration; references to other keys are not followed."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    for key in node:
        yield full_key(node, key)
        if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
            yield from _full_keys(node[key])


def _arguments(node: Any) -> dict[str, inspect.Parameter]:
    return keyword_parameters(target_of(node)) if isinstance(node, DictConfig) and TARGET in node else {}


def _check_type(node: Any, key: str | int, old: Any) -> None:
    """Raise a UserError unless the new value suits the argument's annotation or, without one, the old value's type."""
    name = full_key(node, key)
    with omegaconf_errors(name):
        value = node[key]
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    parameter = _arguments(node).get(str(key))
    if parameter and not isinstance(parameter.annotation, str) and parameter.annotation is not parameter.empty:
        kind = parameter.annotation
    elif isinstance(old, DictConfig) and not isinstance(value, Mapping) and value is not None:
        raise UserError(f"{name} is a group of keys ({', '.join(map(str, old))}), found {value!r}")
    else:
        kind = list if is_list(old) else type(old) if isinstance(old, bool | int | float | str) else Any
    if not fits(value, kind):
        like = (
            "" if old is None or isinstance(old, DictConfig) else f" (such as {list(old) if is_list(old) else old!r})"
        )
        raise UserError(f"{name} expects {type_words(kind)}{like}, found {value!r}")
