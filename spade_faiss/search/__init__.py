"""Exact nearest neighbours under squared Euclidean distance."""

from .gallery import ENGINES, Gallery
from .nearest import nearest, nearest_in_images

__all__ = ["ENGINES", "Gallery", "nearest", "nearest_in_images"]
