"""Nearest neighbours under squared Euclidean distance, exact unless a gallery was asked for."""

from .approximate import (
    Gallery,
    GallerySpec,
    gallery_search,
    nearest_in_gallery,
    set_search_params,
)
from .between import between_images
from .level import ENGINES, LevelSearch
from .nearest import nearest, nearest_in_images
from .sharded import ShardedLevel, level_search

__all__ = [
    "ENGINES",
    "Gallery",
    "GallerySpec",
    "LevelSearch",
    "ShardedLevel",
    "between_images",
    "gallery_search",
    "level_search",
    "nearest",
    "nearest_in_gallery",
    "nearest_in_images",
    "set_search_params",
]
