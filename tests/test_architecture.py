"""Tests of the architecture: imports follow the order of the rooms, and no modules import each other in a circle.

A room is a folder or a module directly in the package. All imports count: those at the top of a module, those inside
functions, and those for type checkers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "projects/sn2fpn/sn2fpn"

ROOMS = {
    "errors": "the exceptions for user mistakes",
    "shipped": "the configurations and study files that come with the package",
    "command_line": "the flags of all command lines",
    "ranges": "checks that numbers are in their ranges",
    "signatures": "the arguments of callables",
    "registry": "objects by name",
    "detectron2_types": "the types by which Detectron2 recognises a configuration and a schedule",
    "trust": "whether code that came with a file may be run",
    "imports": "the user's own Python files, which are imported before a configuration is read",
    "atomic": "files that are written completely or not at all",
    "locks": "locks on files, by which processes know of each other",
    "distributed": "the exchange between processes",
    "precision": "mixed precision",
    "program": "the exit codes of all command lines",
    "structures": "boxes, masks and other values that later rooms exchange",
    "visualization": "pictures of boxes, masks and curves; it knows no data set and no model",
    "config": "YAML and Python configurations; it knows keys, and none of the classes that they configure",
    "layers": "building blocks of networks; they know no pyramid",
    "pyramids": "feature pyramids; they know no trunk, no detector and no data",
    "checkpoint": "reading and writing the weights of any module",
    "data": "data sets and loaders; they know no model",
    "evaluation": "metrics; they know data sets and detections, but no model",
    "modeling": "detectors, made of a trunk, a pyramid, proposals and heads",
    "integrations": "this package inside other programs, on which the Detectron2 engine is built",
    "engine": "training and evaluation; it knows no particular pyramid, data set or metric",
    "predict": "trained models on pictures and videos; it reads configurations as the engine does",
    "export": "trained models as files that run without this package",
    "study": "comparisons, which run the engine and read what it has written",
    "compat": "Detectron2's names for what the other rooms have; only scripts of users import it",
    "cli": "the command sn2fpn, which names the programs of all rooms",
    "__main__": "python -m sn2fpn",
}
"""The rooms from the bottom to the top. A room imports itself and the rooms above it in this list."""


def _find_modules() -> dict[str, Path]:
    """Return the modules by their names inside the package, such as "engine" and "engine.trainer"; the root is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _find_modules()


def _imports(module: str) -> Iterator[tuple[str, int]]:
    """Yield the modules of the package that a module imports, and the lines of the imports."""
    path = MODULES[module]
    parts = module.split(".") if module else []
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = ["sn2fpn", *package][: len(package) + 2 - node.level] if node.level else []
            base = ".".join([*outer, node.module] if node.module else outer)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            root, _, inside = name.partition(".")
            if root == "sn2fpn":  # what is no module is a name inside of one
                yield inside if inside in MODULES else inside.rpartition(".")[0], node.lineno


def test_the_list_names_the_rooms_on_disk() -> None:
    assert {name.partition(".")[0] for name in MODULES if name} == set(ROOMS)


def test_the_trees_in_the_documents_are_the_tree_on_disk() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Where things are")[2].partition("##")[0]
    folders = set(re.findall(r"^ +([\w.]+)/ ", readme, re.MULTILINE))
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= folders
    assert all((ROOT / folder).is_dir() or (PACKAGE / folder).is_dir() for folder in folders)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    order = re.findall(r"^    (\w+)(?=  )", contributing, re.MULTILINE)
    assert [room for room in order if room in ROOMS] == [room for room in ROOMS if room in rooms]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_follow_the_order_of_the_rooms(room: str) -> None:
    order = list(ROOMS)
    allowed = {"", *order[: order.index(room) + 1]}  # "" is the package itself, which holds the version
    back = [
        f"{MODULES[module].relative_to(PACKAGE)}:{line} imports {imported}"
        for module in MODULES
        if module.partition(".")[0] == room
        for imported, line in _imports(module)
        if imported.partition(".")[0] not in allowed
    ]
    assert not back, f"{room} ({ROOMS[room]}) is below what it imports"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {imported for imported, _ in _imports(module)} - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        pytest.fail("a circle of imports: " + " -> ".join(name or "sn2fpn" for name in reversed(e.args[1])))


def test_one_module_alone_knows_fvcore() -> None:
    """fvcore has to be built from source, so that no other module may need it, nor what it brings."""
    found = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for imported in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if imported.partition(".")[0] in ("fvcore", "iopath", "yacs")
    }
    assert found == {"detectron2_types"}
