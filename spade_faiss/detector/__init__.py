"""Detectors: fit on good images, predict where a new one is wrong."""

from .ensemble import Ensemble, open_detector
from .spade import Prediction, Result, Spade

__all__ = ["Ensemble", "Prediction", "Result", "Spade", "open_detector"]
