"""Find, decode and frame images: from paths or arrays to what the network sees, and back."""

from .decode import FORMATS, MAX_PIXELS, MIN_SIDE, decode_image, image_size, read_image
from .find import SUFFIXES, Found, find_images
from .framing import Framing
from .load import Loaded, decode_images, first_size, load_images
from .source import Frame, OnError, OnNote, Source, name_of, report_problem

__all__ = [
    "FORMATS", "MAX_PIXELS", "MIN_SIDE", "SUFFIXES", "Found", "Frame", "Framing",
    "Loaded", "OnError", "OnNote", "Source", "decode_image", "decode_images", "find_images",
    "first_size", "image_size", "load_images", "name_of", "read_image", "report_problem",
]
