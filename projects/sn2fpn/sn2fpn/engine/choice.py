"""Which engine runs: this package's own, or Detectron2."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from ..errors import UserError

__all__ = ["ENGINES", "TESTED_COMMIT", "Engine", "choose_engine"]

ENGINES = ("auto", "native", "detectron2")
TESTED_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
_INSTALL_PAGE = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


class Engine(NamedTuple):
    """The engine of a run: "native" or "detectron2", and why it is this one."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"Engine: {self.name} ({self.why})"


def choose_engine(wanted: str, config_file: str = "") -> Engine:
    """The engine for `--engine wanted`; "auto" takes Detectron2 when it imports.

    Raises:
        UserError: "detectron2" is wanted but does not import, or cannot run the config.
    """
    if wanted == "native":
        return Engine("native", "--engine native")
    if config_file.endswith(".py"):
        if wanted == "detectron2":
            raise UserError(
                f"--engine detectron2: {config_file} is a LazyConfig of native parts; "
                "leave --engine out, or give a YAML config"
            )
        return Engine("native", "a LazyConfig of native parts")
    problem = _import_problem()
    if not problem:
        return Engine("detectron2", f"--engine {wanted}" + (", and Detectron2 imports" if wanted == "auto" else ""))
    if wanted == "auto":
        return Engine("native", f"--engine auto, and {problem}")
    raise UserError(
        f"--engine detectron2: {problem}. How to install it: {_INSTALL_PAGE} (tested with its commit "
        f"{TESTED_COMMIT}). Without it, --engine native trains the same models"
    )


def _import_problem() -> str:
    """Why Detectron2 cannot be used; "" when it can."""
    try:
        import_module("detectron2.modeling")
    except ModuleNotFoundError as e:
        if e.name == "detectron2":
            return "Detectron2 is not installed"
        return f"Detectron2 does not import: {e}"
    except Exception as e:  # a build for another torch fails in many ways, all of which the message names
        return f"Detectron2 does not import: {type(e).__name__}: {e}"
    return ""
