"""The wheel, built from the source distribution and installed where nothing of this checkout can be seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import sn2fpn
from sn2fpn.shipped import shipped_files

pytest.importorskip("setuptools", minversion="77", reason="the wheel is built with setuptools 77 or newer")
pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[2]
_QUICK = "quick/faster_rcnn_R18_sni_shapes.yaml"
_ENV = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def _run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=_ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _build(kind: str, source: Path, folder: Path) -> Path:
    """Build an sdist or a wheel as `python -m build --no-isolation` does, and return its path."""
    code = f"import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"
    return folder / _run([sys.executable, "-c", code, str(folder)], source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, which is built from a copy of the checkout as building leaves files."""
    copy, unpacked, dist = (tmp_path_factory.mktemp(name) for name in ("checkout", "unpacked", "dist"))
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("configs", "studies", "projects"):
        shutil.copytree(_ROOT / name, copy / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, copy)
    sdist = _build("sdist", copy, dist)
    with zipfile.ZipFile(_build("editable", copy, dist)) as editable:  # it uses the files of the checkout
        (link,) = (name for name in editable.namelist() if name.endswith(".pth"))
        assert editable.read(link).decode().strip() == str(copy / "projects/sn2fpn")
        assert not [name for name in editable.namelist() if name.startswith("sn2fpn/")]
    shutil.rmtree(copy)
    with tarfile.open(sdist) as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # which Python 3.11.3 and older lack
        archive.extractall(unpacked, **safely)
    return _build("wheel", next(unpacked.iterdir()), dist)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and the libraries, but no package, of this environment.

    The path of a folder in a .pth file adds the libraries in it. The .pth files in this folder itself, by which an
    editable install finds the checkout, do not count there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    libraries = next((folder / "lib").glob("*/site-packages")) / "libraries.pth"
    libraries.write_text("\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))
    python = folder / "bin/python"
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    _run([sys.executable, *install], folder)
    return python


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the commands are typed."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def typed(python: Path, empty: Path) -> Callable[[str], str]:
    """`typed(line)` runs a line that a user types, and returns what it prints."""

    def run(line: str) -> str:
        program, *words = line.split()
        return _run([str(python.with_name(program)), *words], empty)

    return run


def test_the_wheel_holds_all_that_is_shipped(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for kind in ("configs", "studies"):
            packed = {
                name.removeprefix(f"sn2fpn/{kind}/"): name for name in names if name.startswith(f"sn2fpn/{kind}/")
            }
            assert set(packed) == set(shipped_files(kind))
            assert all(archive.read(packed[name]) == path.read_bytes() for name, path in shipped_files(kind).items())
    assert {"sn2fpn/py.typed", "sn2fpn/study/report/templates/report.html"} <= names
    package = Path(sn2fpn.__file__).parent
    assert {name for name in names if name.endswith(".py") and "/configs/" not in name} == {
        f"sn2fpn/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "configs"
    }
    assert wheel.name == f"sn2fpn-{sn2fpn.__version__}-py3-none-any.whl"


def test_the_quick_start_runs_from_an_empty_folder(typed: Callable[[str], str], python: Path, empty: Path) -> None:
    assert typed("sn2fpn --version") == typed("python -m sn2fpn --version") == f"sn2fpn {sn2fpn.__version__}\n"
    assert _QUICK in typed("sn2fpn configs list") and "study run" in typed("sn2fpn study run --help")
    train = f"train {_QUICK} SOLVER.MAX_ITER 3 SOLVER.CHECKPOINT_PERIOD 3 OUTPUT_DIR out DATASETS.TEST ()"
    code = (
        "import sys; from sn2fpn.__main__ import main; code = main(sys.argv[1:]); "
        "print('files', *{m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'sn2fpn'}, sep='\\n'); "
        "sys.exit(code)"
    )
    said, _, files = _run([str(python), "-c", code, *train.split()], empty).partition("files\n")
    assert "sn2fpn train" in said  # the log names the command
    assert len(files.split()) > 50
    assert all(Path(file).is_relative_to(python.parents[1]) for file in files.split())
    assert str(_ROOT) not in (empty / "out/log.txt").read_text()
    test = "INPUT.MIN_SIZE_TEST 96 OUTPUT_DIR evaluated"
    typed(f"sn2fpn eval {_QUICK} MODEL.WEIGHTS out/model_final.pth {test}")
    assert "bbox" in json.loads((empty / "evaluated/inference/shapes_val/results.json").read_text())
    picture = min((empty / "datasets/shapes/val").iterdir())
    weights = "--weights out/model_final.pth"
    typed(f"sn2fpn predict {_QUICK} {weights} --input {picture} --output found")
    assert (empty / "found/predictions.json").is_file() and (empty / "found" / picture.name).is_file()
    assert "no problems" in typed("sn2fpn check shapes_val")


def test_studies_and_copies_work_from_an_empty_folder(typed: Callable[[str], str], empty: Path) -> None:
    said = typed("sn2fpn configs copy quick_shapes.yaml")
    assert "studies/quick_shapes.yaml" in said and (empty / "configs/quick/Base-Shapes.yaml").is_file()
    study = empty / "studies/quick_shapes.yaml"
    study.write_text(study.read_text().replace("[fpn, sni, ihp, pafpn]", "[fpn, sni]"))
    assert "ihp" not in (own := typed("sn2fpn study run studies/quick_shapes.yaml --dry-run"))
    study.unlink()
    assert "sni" in own and "ihp" in typed("sn2fpn study run quick_shapes.yaml --dry-run --output elsewhere")
