"""Exact nearest neighbours under squared Euclidean distance."""

from .nearest import ENGINES, nearest, nearest_in_images

__all__ = ["ENGINES", "nearest", "nearest_in_images"]
