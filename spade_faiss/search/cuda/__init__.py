"""Exact nearest patches on a GPU: a fused low-precision screen that float32 decides.

`docs/search.md` says how it works, why its result is exact, and where the time goes. Triton is
imported with this package.
"""

from .fused import FusedSearch, fused, fused_in_images
from .gallery import PreparedGallery, prepare

__all__ = ["FusedSearch", "PreparedGallery", "fused", "fused_in_images", "prepare"]
