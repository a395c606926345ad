"""Checkpoints, which are read safely, written atomically and matched with a model by name."""

from .checkpointer import Checkpointer
from .matching import MatchReport, load_weights
from .reading import Checkpoint, load_file
from .trained import load_trained
from .writing import atomic_save

__all__ = ["Checkpoint", "Checkpointer", "MatchReport", "atomic_save", "load_file", "load_trained", "load_weights"]
