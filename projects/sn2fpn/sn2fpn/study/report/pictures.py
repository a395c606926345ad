"""Pictures for the page, which has to stand alone: as data in their element."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...atomic import atomic_write
from ...visualization import image_grid
from ..results import StudyResults
from .samples import SampleRow

__all__ = ["Embedded", "embedded", "feature_pictures", "save_sheet"]

_WIDEST_PX = 1600


class Embedded(NamedTuple):
    """What an <img> needs."""

    caption: str
    source: str  # a data: URL
    width: int
    height: int


def embedded(picture: np.ndarray | Path, caption: str) -> Embedded:
    """(H, W, 3) uint8 RGB or an image file as a JPEG inside the page, made smaller where it is very wide."""
    image = Image.open(picture).convert("RGB") if isinstance(picture, Path) else Image.fromarray(picture)
    if image.width > _WIDEST_PX:
        image = image.resize((_WIDEST_PX, round(image.height * _WIDEST_PX / image.width)), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=85, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return Embedded(caption, source, image.width, image.height)


def save_sheet(rows: Sequence[SampleRow], path: Path) -> None:
    """All sample pictures on one sheet, a row per image."""
    sheet = image_grid([row.pictures for row in rows], [row.captions for row in rows])
    with atomic_write(path, "wb") as file:
        Image.fromarray(sheet).save(file, format="JPEG", quality=88)


def feature_pictures(results: StudyResults) -> list[Path]:
    """What `study features` drew for this study."""
    return sorted((results.folder / "features").glob("*.png"))
