"""Galleries that stage two searches whole: approximate indices, coresets, and both together.

They stand beside the exact patches of a level, which stay as they are: what is found is a row
of the level, and distances are measured to that row itself.
"""

from .coreset import greedy_coreset
from .gallery import Gallery, set_search_params
from .search import gallery_search, nearest_in_gallery, nearest_outside
from .spec import GallerySpec

__all__ = [
    "Gallery",
    "GallerySpec",
    "gallery_search",
    "greedy_coreset",
    "nearest_in_gallery",
    "nearest_outside",
    "set_search_params",
]
