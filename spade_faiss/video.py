"""The frames of a video, by the path that they have always had: see `spade_faiss.images.video`."""

from .images.video import read_frames

__all__ = ["read_frames"]
