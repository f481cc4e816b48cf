"""Detectors: fit on good images, predict where a new one is wrong."""

from .detector import Detector
from .ensemble import Ensemble
from .new import new_detector
from .open import open_detector
from .prediction import Prediction
from .result import Result
from .settings import Settings
from .spade import Spade

__all__ = [
    "Detector",
    "Ensemble",
    "Prediction",
    "Result",
    "Settings",
    "Spade",
    "new_detector",
    "open_detector",
]
