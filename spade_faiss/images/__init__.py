"""Find, decode and frame images: from paths or arrays to what the network sees, and back."""

from .._support.warning import ImageWarning
from .decode import (
    FORMATS,
    MAX_PIXELS,
    MIN_SIDE,
    decode_image,
    image_format,
    image_size,
    read_image,
)
from .find import SUFFIXES, Found, find_images, may_be_image, passed_over
from .framing import Framing
from .given import as_image
from .load import Loaded, decode_images, load_images, sizes_of
from .region import propose_region, read_region
from .roi import Roi
from .source import Frame, Images, OnError, OnNote, Source, name_of, report_note, report_problem

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "Found",
    "Frame",
    "Framing",
    "ImageWarning",
    "Images",
    "Loaded",
    "OnError",
    "OnNote",
    "Roi",
    "Source",
    "as_image",
    "decode_image",
    "decode_images",
    "find_images",
    "image_format",
    "image_size",
    "load_images",
    "may_be_image",
    "name_of",
    "passed_over",
    "propose_region",
    "read_image",
    "read_region",
    "report_note",
    "report_problem",
    "sizes_of",
]
