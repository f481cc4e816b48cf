"""Anomaly maps, out of the distances of patches."""

from .area import area_peak
from .score import power_mean
from .smoothing import anomaly_map

__all__ = ["anomaly_map", "area_peak", "power_mean"]
