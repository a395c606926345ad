"""Drawing: boxes and masks on images, grids of images, predictions beside ground truth, and training curves."""

from .analysis import plot_analysis
from .curves import plot_curves
from .detections import Shown, draw_shown, shown_detections
from .grid import Sample, image_grid, predictions_beside_ground_truth, save_png
from .instances import class_color, draw_boxes, draw_instances, draw_masks, fit_image, scale_instances
from .labels import MAX_LABELS

__all__ = [
    "MAX_LABELS",
    "Sample",
    "Shown",
    "class_color",
    "draw_boxes",
    "draw_shown",
    "draw_instances",
    "draw_masks",
    "fit_image",
    "image_grid",
    "plot_analysis",
    "plot_curves",
    "predictions_beside_ground_truth",
    "save_png",
    "scale_instances",
    "shown_detections",
]
