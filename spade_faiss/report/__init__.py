"""What a person reads: overlays, explanations, plots, pages, and a query's result files."""

from ..pictures.drawing import explanation_picture, overlay_picture
from .files import PassingFrame, Row
from .folder import discard_results
from .plots import bars_picture, timeline_picture
from .query import write_query

__all__ = [
    "PassingFrame",
    "Row",
    "bars_picture",
    "discard_results",
    "explanation_picture",
    "overlay_picture",
    "timeline_picture",
    "write_query",
]
