"""What a person reads: overlays, regions with their matched good patches, plots, result files."""

from ..verdict.regions import Match, Region, find_regions
from .files import Row
from .folder import discard_results
from .pictures import explanation_picture, overlay_picture
from .plots import bars_picture, timeline_picture
from .query import write_query

__all__ = [
    "Match",
    "Region",
    "Row",
    "bars_picture",
    "discard_results",
    "explanation_picture",
    "find_regions",
    "overlay_picture",
    "timeline_picture",
    "write_query",
]
