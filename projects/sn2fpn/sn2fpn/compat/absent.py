"""The answers to names, modules and arguments that Detectron2 has and this package does not offer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from ..errors import ArgumentError, did_you_mean, shortened
from .advice import ADVICE, MODULES

__all__ = ["absent", "answer_imports", "refuse"]

_PAGE = "the page 'Scripts of Detectron2 users' lists what is offered"


def absent(module: str, offered: Iterable[str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__`, which says what to use in place of a name that is not offered.

    Args:
        module: the name of the module.
        offered: the names that the module has.

    Returns:
        A function that raises ImportError for a name, because `from module import name` hides any other error. Names
        with a leading underscore, after which Python and its tools look by themselves, raise AttributeError. But a
        module has an empty `__path__`, so that Python asks the finder of `answer_imports` for modules below it.
    """
    offered = list(offered)

    def __getattr__(name: str) -> Any:
        if name == "__path__":
            return []
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        if _below_package(f"{module}.{name}") in MODULES:
            raise _missing_module(f"{module}.{name}")
        advice = f": {ADVICE[name]}" if name in ADVICE else did_you_mean(name, offered)
        raise ImportError(f"{module} does not offer {name}{advice}", name=module)

    return __getattr__


def answer_imports() -> None:
    """Let the import of a module that this package does not have say what to use instead, from now on."""
    if not any(isinstance(finder, _AbsentModules) for finder in sys.meta_path):
        sys.meta_path.append(_AbsentModules())


class _AbsentModules(MetaPathFinder):
    """The last finder of Python's import, which is asked for modules of this package that no other finder has."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Raise a ModuleNotFoundError for a module of this package, and return None for any other one."""
        if fullname.startswith(f"{__package__}.") and not fullname.rpartition(".")[2].startswith("_"):
            raise _missing_module(fullname)


def _missing_module(module: str) -> ModuleNotFoundError:
    """Return the error for a module: where its names are, or else what to use instead of them."""
    parent, _, leaf = module.rpartition(".")
    offered = getattr(sys.modules.get(parent), "__all__", [])
    names = MODULES.get(_below_package(module), leaf).split()
    answers = [f"{parent} has {', '.join(here)}"] if (here := [n for n in names if n in offered]) else []
    advised = [n for n in names if n not in here and n in ADVICE]
    for advice in dict.fromkeys(ADVICE[n] for n in advised):
        named = ", ".join(n for n in advised if ADVICE[n] == advice)
        answers.append(advice if named == leaf else f"{named}: {advice}")
    near = did_you_mean(leaf, offered)
    said = ": " + "; ".join(answers) if answers else near if "did you mean" in near else f"; {_PAGE}"
    return ModuleNotFoundError(f"{parent} does not offer the module {leaf}{said}", name=module)


def _below_package(module: str) -> str:
    return module.removeprefix(f"{__package__}.")


def refuse(neutral: Any, **given: Any) -> None:
    """Raise an ArgumentError for the first argument that has another value than the one that asks for nothing."""
    for argument, value in given.items():
        if value is not neutral and not (type(value) is type(neutral) and value == neutral):
            raise ArgumentError(argument, f"expected {neutral!r}, found {shortened(repr(value))}")
