"""The choice between the two engines: this package's own one and Detectron2."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from ..errors import UserError, check_choice

__all__ = ["ENGINES", "TESTED_COMMIT", "Engine", "choose_engine"]

ENGINES = ("auto", "native", "detectron2")
TESTED_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
_INSTALL_PAGE = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


class Engine(NamedTuple):
    """The engine of a run.

    Attributes:
        name: "native" or "detectron2".
        why: why it was chosen.
    """

    name: str
    why: str

    def __str__(self) -> str:
        return f"Engine: {self.name} ({self.why})"


def choose_engine(wanted: str, config_file: str = "") -> Engine:
    """Return the engine for `--engine wanted`.

    Args:
        wanted: one of `ENGINES`; "auto" takes Detectron2 if it can be imported.
        config_file: path of the configuration; Python configurations need the native engine.

    Raises:
        ArgumentError: there is no such engine.
        UserError: "detectron2" is wanted, but it cannot be imported or cannot run the configuration.
    """
    check_choice("--engine", wanted, ENGINES)
    if wanted == "native":
        return Engine("native", "--engine native")
    if config_file.endswith(".py"):
        if wanted == "detectron2":
            raise UserError(
                f"--engine detectron2: {config_file} is a LazyConfig for the native engine; "
                "leave --engine out, or name a YAML config"
            )
        return Engine("native", "the config is a LazyConfig for it")
    problem = _import_problem()
    if not problem:
        return Engine(
            "detectron2", f"--engine {wanted}" + (", and Detectron2 can be imported" if wanted == "auto" else "")
        )
    if wanted == "auto":
        return Engine("native", f"--engine auto, and {problem}")
    raise UserError(
        f"--engine detectron2: {problem}. How to install it: {_INSTALL_PAGE} (it was tested with "
        f"commit {TESTED_COMMIT}). Without it, --engine native trains the same models"
    )


def _import_problem() -> str:
    """Return why Detectron2 cannot be used, or "" if it can."""
    try:
        import_module("detectron2.modeling")
    except ModuleNotFoundError as e:
        if e.name == "detectron2":
            return "Detectron2 is not installed"
        return f"Detectron2 cannot be imported: {e}"
    except Exception as e:  # a build for another version of torch fails in many ways; the message says how
        return f"Detectron2 cannot be imported: {type(e).__name__}: {e}"
    return ""
