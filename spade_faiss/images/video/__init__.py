"""Read videos frame by frame, in memory that does not grow with their length."""

from .picture import ToRGB
from .read import VIDEO_SUFFIXES, is_video, open_sources, read_frames, with_motion

__all__ = [
    "VIDEO_SUFFIXES",
    "ToRGB",
    "is_video",
    "open_sources",
    "read_frames",
    "with_motion",
]
