"""Pictures: boxes and masks on images, predictions beside ground truth, training curves."""

from .curves import plot_curves
from .drawing import class_color, draw_boxes, draw_instances, draw_masks
from .grid import Sample, image_grid, predictions_beside_ground_truth, save_png
from .predictions import draw_predictions, draw_set

__all__ = [
    "Sample",
    "class_color",
    "draw_boxes",
    "draw_instances",
    "draw_masks",
    "draw_predictions",
    "draw_set",
    "image_grid",
    "plot_curves",
    "predictions_beside_ground_truth",
    "save_png",
]
