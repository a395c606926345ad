"""Detect objects with an exported detector: python run_exported.py model.onnx picture.jpg

It needs onnxruntime, numpy and Pillow, and nothing of sn2fpn.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read(session, path):
    """Return a picture (C, H, W) as the model wants it, its number of pixels per pixel of the original, and the
    original's size."""
    about, wanted = session.get_modelmeta().custom_metadata_map, session.get_inputs()[0]
    picture = ImageOps.exif_transpose(Image.open(path))  # upright
    if picture.mode.startswith("I"):  # gray with 16 bits
        picture = Image.fromarray((np.asarray(picture) / 257).astype(np.uint8))
    picture = picture.convert("RGB")
    resized = picture.resize(input_size(picture.size, about, wanted.shape), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)[:, :, :: -1 if about["input_format"] == "BGR" else 1]
    pixels = pixels.transpose(2, 0, 1).astype(np.float32 if wanted.type == "tensor(float)" else np.uint8)
    return np.ascontiguousarray(pixels), np.array(resized.size) / picture.size, picture.size


def input_size(size, about, shape):
    """Return the (width, height) that a picture of this (width, height) is resized to."""
    if isinstance(shape[1], int):  # a file that was exported with --size
        return shape[2], shape[1]
    shortest = int(about.get("min_size", 0))  # 0, or none, keeps pictures as they are
    scale = min(shortest / min(size), int(about["max_size"]) / max(size)) if shortest else 1
    return [int(side * scale + 0.5) for side in size]


def paste_masks(masks, boxes, width, height):
    """Return the masks of a whole image (bool array (N, height, width)).

    Each mask (M, M) of probabilities is stretched over its box, and the pixels whose centres reach 0.5 are inside.
    Values between the centres of a mask's cells are interpolated, and values outside of the mask are 0.
    """

    def weights(low, high, pixels, side):
        """Return the share of each cell of the mask in each pixel (pixels, side)."""
        position = (np.arange(pixels) + 0.5 - low) / (high - low) * side - 0.5
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(side)))

    side = masks.shape[-1]
    out = np.zeros((len(masks), height, width), bool)
    for n, (mask, (x1, y1, x2, y2)) in enumerate(zip(masks, boxes)):
        out[n] = weights(y1, y2, height, side) @ mask @ weights(x1, x2, width, side).T >= 0.5
    return out


def detect(model, path):
    """Return the boxes in pixels of the picture, scores, class names and, for Mask R-CNN, masks of the picture."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image, factor, (width, height) = read(session, path)
    boxes, scores, classes, *masks = session.run(None, {"image": image})
    boxes = boxes / np.tile(factor, 2)
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    pasted = [paste_masks(masks[0], boxes, width, height)] if masks else []
    return boxes, scores, [names[c] for c in classes], *pasted


if __name__ == "__main__":
    boxes, scores, names, *masks = detect(*sys.argv[1:])
    for n, (box, score, name) in enumerate(zip(boxes, scores, names)):
        area = f", {masks[0][n].sum()} pixels" if masks else ""
        print(f"{name} {score:.3f} in {box.round(1).tolist()}{area}")
