"""What a person reads: overlays, regions with their matched good patches, result files."""

from .files import Row, write_query
from .pictures import explanation_picture, overlay_picture
from .regions import Match, Region, find_regions

__all__ = [
    "Match", "Region", "Row", "explanation_picture", "find_regions", "overlay_picture",
    "write_query",
]
