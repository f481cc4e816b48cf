"""Anomaly maps, out of the distances of patches."""

from .smoothing import anomaly_map

__all__ = ["anomaly_map"]
