"""Feature pyramids for two-stage detectors, compatible with Detectron2."""

__version__ = "0.1.0"
