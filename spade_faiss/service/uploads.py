"""The images of a request: read from a multipart body, and measured before they are decoded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..images import image_size
from .limits import Limits, Refusal
from .parameters import quoted

PART = "images"
"""What each part of the form is called."""


@dataclass
class Upload:
    """A file as the client sent it."""

    name: str
    data: bytearray


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Read the files of a multipart form; what is too much is noticed as it comes.

    Raises
    ------
    Refusal
        408 if the body takes too long, 413 if it or the number of files is too large, 415 if it
        is no multipart form, 422 if the form is damaged or holds anything but files called
        `images`.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(
            415,
            "send a multipart/form-data body with its boundary, each image as a "
            f"part called {PART!r}",
        )
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Refusal(415, f"send the body as it is, without Content-Encoding: {quoted(coding)}")
    size = 0
    try:
        form = _Form(options[b"boundary"], limits.images)
        async with asyncio.timeout(limits.upload):
            async for chunk in request.stream():
                size += len(chunk)
                check_bytes(size, limits)
                form.write(chunk)
    except FormParserError as error:
        raise Refusal(422, f"the multipart body is damaged: {error}") from None
    except TimeoutError:
        raise Refusal(408, f"the body took more than {limits.upload:g} s to arrive") from None
    if not form.whole:
        raise Refusal(422, "the multipart body is cut short")
    if not form.uploads:
        raise Refusal(422, f"the form holds no image; send each as a part called {PART!r}")
    return form.uploads


def check_bytes(size: int, limits: Limits) -> None:
    """Refuse a body of more bytes than the limit."""
    if size > limits.bytes:
        raise Refusal(
            413, f"the body has more than {limits.bytes} bytes; send fewer or smaller images"
        )


def count_pixels(uploads: list[Upload], limits: Limits) -> int:
    """Return how many pixels the images have by their headers.

    Raises
    ------
    Refusal
        413 if they are too many, 415 if something is no image, 422 if it is empty.
    """
    total = 0
    for upload in uploads:
        if not upload.data:
            raise Refusal(422, f"{upload.name}: is empty (0 bytes)")
        size = image_size(upload.data)
        if size is None:
            raise Refusal(
                415,
                f"{upload.name}: is not an image that can be decoded (PNG, JPEG, "
                "BMP, TIFF or WebP)",
            )
        total += size[0] * size[1]
        if total > limits.pixels:
            what = "has" if len(uploads) == 1 else "and those before it have"
            raise Refusal(
                413,
                f"{upload.name}: {what} more than {limits.pixels} pixels; scale "
                "down or send fewer at once",
            )
    return total


class _Form:
    """Takes a multipart body apart, chunk by chunk."""

    def __init__(self, boundary: bytes, most: int) -> None:
        self.uploads: list[Upload] = []
        self.whole = False
        self._most = most
        self._field = self._value = b""
        self._disposition = b""
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
        )

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def _begin(self) -> None:
        self._field = self._value = self._disposition = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name != PART:
            raise Refusal(
                422,
                f"the form has a part called {quoted(name)}; call each image "
                f"{PART!r}, and write options into the address (?maps=tiff)",
            )
        if len(self.uploads) == self._most:
            raise Refusal(413, f"the form holds more than {self._most} images; send fewer at once")
        given = options.get(b"filename", b"").decode("utf-8", "replace")
        self.uploads.append(Upload(given or f"image {len(self.uploads)}", bytearray()))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.uploads[-1].data += data[start:end]

    def _on_end(self) -> None:
        self.whole = True
