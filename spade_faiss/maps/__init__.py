"""Anomaly maps, out of the distances of patches."""

from .score import power_mean
from .smoothing import anomaly_map

__all__ = ["anomaly_map", "power_mean"]
