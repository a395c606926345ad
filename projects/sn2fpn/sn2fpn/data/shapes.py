"""The synthetic data set `shapes`, which is written to disk as JPEG files and COCO JSON.

The images show coloured shapes of all sizes, some of them overlapping, on textured backgrounds. The shape decides the
class, and the colour has no meaning. A detector learns the data set in minutes. It is read by the same reader as COCO,
and it follows entirely from fixed seeds.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import UserError

__all__ = ["CLASSES", "SPLITS", "ensure_shapes", "write_shapes"]

logger = logging.getLogger(__name__)

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
SPLITS = {"train": (400, 1), "val": (100, 2)}  # number of images, seed

SUPERSAMPLING = 3  # factor of the canvas, for smooth edges and for polygons finer than a pixel
SIDE_PX = ((18, 34), (34, 100), (100, 170))  # these are mostly small, medium and large objects by COCO's areas
SIZE_SHARES = (0.3, 0.45, 0.25)
MIN_VISIBLE = 0.7  # the share of an object's area that other objects must not cover


def ensure_shapes(root: Path) -> Path:
    """Write the data set to `root` if it does not exist yet, and return `root`.

    The data set is written to a temporary folder that is then renamed. Therefore no process sees an incomplete data
    set, and processes that start at the same time do not disturb each other.

    Raises:
        UserError: the folder cannot be written.
    """
    if root.is_dir():
        return root
    logger.info("writing the synthetic data set 'shapes' to %s", root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".shapes-", dir=root.parent))
    except OSError as e:
        raise UserError(
            f"{root}: the data set 'shapes' cannot be written ({e}); "
            "set DETECTRON2_DATASETS to a folder that you may write to"
        ) from None
    try:
        write_shapes(building)
        building.chmod(0o755)  # mkdtemp creates folders that other users cannot read
        try:
            building.rename(root)
        except OSError:
            if not root.is_dir():  # if it exists, another process has just written the same files
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def write_shapes(root: Path, splits: dict[str, tuple[int, int]] = SPLITS) -> None:
    """Write `<split>/*.jpg` and `annotations/instances_<split>.json` for each split.

    Args:
        root: the folder to write to.
        splits: number of images and seed by the name of the split.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, (count, seed) in splits.items():
        (root / split).mkdir(exist_ok=True)
        content: dict[str, Any] = {
            "info": {"description": "synthetic shapes", "version": "1"},
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
        }
        for image_id in range(1, count + 1):
            image, objects = draw_image(np.random.default_rng([seed, image_id]))
            file_name = f"{image_id:06d}.jpg"
            Image.fromarray(image).save(root / split / file_name, quality=92)
            content["images"].append(
                {"id": image_id, "file_name": file_name, "height": image.shape[0], "width": image.shape[1]}
            )
            for obj in objects:
                content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": image_id, **obj})
        with (root / "annotations" / f"instances_{split}.json").open("w", encoding="utf-8") as f:
            json.dump(content, f)
            f.flush()
            os.fsync(f.fileno())


def draw_image(rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw an image, uint8 (H, W, 3) RGB, and return it with its annotations, which have COCO's keys but no ids."""
    short, long = int(rng.integers(192, 241)), int(rng.integers(240, 289))
    h, w = (short, long) if rng.random() < 0.5 else (long, short)
    s = SUPERSAMPLING
    image = _background(rng, h, w)
    owner = np.full((h * s, w * s), -1, np.int16)  # the object that is visible at each pixel of the canvas
    kinds: list[int] = []
    drawn, seen = [], np.zeros(0)  # number of pixels of each object when drawn, and now
    sizes = rng.choice(3, int(rng.integers(3, 8)), p=SIZE_SHARES)
    for size in sorted(sizes, reverse=True):  # small objects are drawn last
        for _attempt in range(10):
            kind = int(rng.integers(len(CLASSES)))
            mask = np.zeros(owner.shape, np.uint8)
            cv2.fillPoly(mask, [np.rint(o * s).astype(np.int32) for o in _place(rng, kind, size, h, w)], 255)
            inside = mask.astype(bool)
            hidden = owner[inside]
            left = seen - np.bincount(hidden[hidden >= 0], minlength=len(kinds))
            if np.all(left >= MIN_VISIBLE * np.array(drawn)):
                owner[inside] = len(kinds)
                kinds.append(kind)
                drawn.append(len(hidden))
                seen = np.append(left, len(hidden))
                _paint(rng, image, cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255)
                break
    image += 4 * rng.standard_normal(image.shape, np.float32)
    return image.clip(0, 255).astype(np.uint8), [_annotate(owner == i, kind) for i, kind in enumerate(kinds)]


def _background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Draw a background of muted colours with soft blobs and stripes, float32 (H, W, 3)."""
    base = rng.uniform(70, 180) + rng.uniform(-20, 20, 3)
    coarse = cv2.resize(rng.normal(0, 22, (5, 5, 3)), (w, h), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.normal(0, 12, (h // 4, w // 4)), (w, h), interpolation=cv2.INTER_LINEAR)
    angle, period = rng.uniform(0, np.pi), rng.uniform(15, 60)
    along = np.arange(w) * np.cos(angle) + np.arange(h)[:, None] * np.sin(angle)
    stripes = 9 * np.sin(along * (2 * np.pi / period))
    return (base + coarse + (fine + stripes)[:, :, None]).clip(0, 255).astype(np.float32)


def _paint(rng: np.random.Generator, image: np.ndarray, coverage: np.ndarray) -> None:
    """Blend in a saturated colour that differs from the background; `coverage` is the share of each pixel."""
    behind = (image * coverage[:, :, None]).sum((0, 1)) / coverage.sum()
    while True:
        colour = rng.uniform(0, 255, 3)
        if np.abs(colour - behind).sum() > 150 and np.ptp(colour) > 90:
            break
    image += coverage[:, :, None] * (colour - image)


def _place(rng: np.random.Generator, kind: int, size: int, h: int, w: int) -> list[np.ndarray]:
    """Return the (K, 2) outlines, in pixels, of a shape at a random place inside the image."""
    low, high = SIDE_PX[size]
    side = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    stretch = np.exp(rng.uniform(-0.15, 0.15, 2))
    angle = rng.uniform(-0.35, 0.35)  # at most 20 degrees, so that a square remains a square
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outlines = [(o * stretch) @ turn.T for o in _unit_shape(CLASSES[kind])]
    low_corner, high_corner = outlines[0].min(0), outlines[0].max(0)
    outlines = [(o - low_corner) * (side / (high_corner - low_corner).max()) for o in outlines]
    extent = outlines[0].max(0)
    corner = rng.uniform(0, 1, 2) * (np.array([w, h]) - 1 - extent)
    return [o + corner for o in outlines]


def _unit_shape(name: str) -> list[np.ndarray]:
    """Return outlines around the origin; a second outline is a hole."""
    if name in ("circle", "ring"):
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        circle = np.stack([np.cos(t), np.sin(t)], 1)
        return [circle] if name == "circle" else [circle, 0.55 * circle]
    if name == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)]
    if name == "triangle":
        return [np.array([[0, -1], [1, 0.8], [-1, 0.8]], float)]
    if name == "star":
        t = np.arange(10) * np.pi / 5 - np.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return [np.stack([np.cos(t), np.sin(t)], 1) * radius[:, None]]
    a = 0.33  # half the width of the bars of the cross
    return [
        np.array(
            [[-a, -1], [a, -1], [a, -a], [1, -a], [1, a], [a, a], [a, 1], [-a, 1], [-a, a], [-1, a], [-1, -a], [-a, -a]]
        )
    ]


def _annotate(visible: np.ndarray, kind: int) -> dict[str, Any]:
    """Return the COCO annotation of the visible part of an object: its polygons, their box and their area."""
    s = SUPERSAMPLING
    contours, hierarchy = cv2.findContours(visible.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for i, (_, _, child, parent) in enumerate(hierarchy[0]):
        if parent >= 0 or cv2.contourArea(contours[i]) < 4 * s * s:  # holes are added below, and slivers are left out
            continue
        outline = _simplify(contours[i])
        while child >= 0:
            outline = _cut_hole(outline, _simplify(contours[child]))
            child = hierarchy[0][child][0]
        polygons.append(np.round((outline + 0.5) / s, 2))  # from pixel centres of the canvas to image pixels
    points = np.concatenate(polygons)
    x1, y1, x2, y2 = (float(v) for v in (*points.min(0), *points.max(0)))
    return {
        "category_id": kind + 1,
        "iscrowd": 0,
        "area": round(float(visible.sum()) / s**2, 2),
        "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
        "segmentation": [p.reshape(-1).tolist() for p in polygons],
    }


def _simplify(contour: np.ndarray) -> np.ndarray:
    """Simplify a contour to a (K, 2) float outline that deviates by at most one canvas pixel."""
    return cv2.approxPolyDP(contour, 1.0, closed=True)[:, 0].astype(np.float64)


def _cut_hole(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join an outline and a hole to one polygon through a slit, because COCO polygons cannot have holes."""
    distance = np.linalg.norm(outline[:, None] - hole[None], axis=2)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    return np.concatenate([outline[: i + 1], np.roll(hole, -j, 0), hole[j : j + 1], outline[i:]])
