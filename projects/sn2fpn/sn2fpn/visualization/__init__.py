"""Drawing: boxes and masks on images, grids of images, predictions beside ground truth, and training curves."""

from .curves import plot_curves
from .grid import Sample, image_grid, predictions_beside_ground_truth, save_png
from .instances import class_color, draw_boxes, draw_instances, draw_masks, fit_image, scale_instances

__all__ = [
    "Sample",
    "class_color",
    "draw_boxes",
    "draw_instances",
    "draw_masks",
    "fit_image",
    "image_grid",
    "plot_curves",
    "predictions_beside_ground_truth",
    "save_png",
    "scale_instances",
]
