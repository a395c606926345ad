"""The flags of the command line that say how objects are found: tiles, test-time augmentation and soft NMS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import argument_names
from ..modeling import MultiViewDetector, SoftNMS
from .predictor import Predictor
from .tiling import TiledPredictor

__all__ = ["with_flags"]

logger = logging.getLogger(__name__)
_OVERLAP, _SIGMA = 0.2, 0.5  # the values of flags that are left out


def with_flags(
    predictor: Predictor, args: Any, track: Callable[[Iterable[Any]], Iterable[Any]]
) -> Predictor | TiledPredictor:
    """Change a predictor as the flags say, which count more than the configuration.

    Args:
        predictor: the predictor of the configuration.
        args: the command line.
        track: shows the progress over the tiles of a picture.

    Raises:
        ArgumentError: the value of a flag is out of its range.
    """
    if args.overlap is not None and not args.tile:
        logger.warning("--overlap has no effect without --tile")
    if args.sigma is not None and args.soft_nms != "gaussian":
        logger.warning("--sigma has no effect without --soft-nms gaussian")
    overlap = _OVERLAP if args.overlap is None else args.overlap
    sigma = _SIGMA if args.sigma is None else args.sigma
    with argument_names({"tile": "--tile", "overlap": "--overlap", "sigma": "--sigma", "short_edges": "--scales"}):
        if args.soft_nms:
            predictor.model.roi_heads.soft_nms = SoftNMS(args.soft_nms, sigma)
        if args.flip or args.scales:
            predictor.augmented = MultiViewDetector(predictor.model, args.scales, predictor.longest_view, args.flip)
        if not args.tile:
            return predictor
        return TiledPredictor(predictor, args.tile, overlap, not args.no_whole, track)
