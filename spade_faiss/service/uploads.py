"""The images of a request: read from its body, and measured before they are decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..images import image_size
from .limits import Limits, Refusal
from .parameters import quoted

Model = TypeVar("Model", bound=BaseModel)
PART = "images"
"""What each part of the form is called."""
_JSON = 1 << 16
"""Bytes that a body of JSON may have."""
ANYTHING = "application/octet-stream"
"""The type of a body that does not say which kind of image it is; that is found out anyhow."""


@dataclass
class Upload:
    """A file as the client sent it."""

    name: str
    data: bytearray


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Read the files of a multipart form, or a body that is an image itself.

    What is too much is noticed as it comes.

    Raises
    ------
    Refusal
        408 if the body takes too long, 413 if it or the number of files is too large, 415 if it
        is neither, 422 if it is empty, or the form is damaged or holds anything but files called
        `images`.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise Refusal(415, f"send the body as it is, without Content-Encoding: {quoted(coding)}")
    if kind.startswith(b"image/") or kind == ANYTHING.encode():
        data = await read_body(request, limits)
        if not data:
            raise Refusal(422, "the body is empty: send an image")
        disposition = request.headers.get("content-disposition", "").encode("latin-1")
        return [Upload(_name_in(disposition, 0), data)]
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(
            415,
            "send a multipart/form-data body with its boundary, each image as a "
            f"part called {PART!r}; or an image itself as image/png or so",
        )
    try:
        form = _Form(options[b"boundary"], limits.images)
        await _receive(request, limits, form.write)
    except FormParserError as error:
        raise Refusal(422, f"the multipart body is damaged: {error}") from None
    if not form.whole:
        raise Refusal(422, "the multipart body is cut short")
    if not form.uploads:
        raise Refusal(422, f"the form holds no image; send each as a part called {PART!r}")
    return form.uploads


async def read_body(request: Request, limits: Limits) -> bytearray:
    """Read a body that is no form; what is too much is noticed as it comes.

    Raises
    ------
    Refusal
        408 if it takes too long, 413 if it is too large.
    """
    data = bytearray()
    await _receive(request, limits, data.extend)
    return data


async def read_json(request: Request, model: type[Model], limits: Limits) -> Model:
    """Read a body that is JSON.

    Raises
    ------
    Refusal
        As `read_body`; 415 if it is of another kind, 422 if it is not as described.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refusal(415, "send JSON, with Content-Type: application/json")
    try:
        body = await read_body(request, replace(limits, bytes=min(limits.bytes, _JSON)))
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}"
            for one in error.errors()
        )
        raise Refusal(422, "; ".join(lines)) from None


async def _receive(request: Request, limits: Limits, take: Callable[[bytes], object]) -> None:
    """Hand a body on as it comes, unless it takes too long or is too large."""
    size = 0
    try:
        async with asyncio.timeout(limits.upload):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.bytes:
                    raise Refusal(
                        413,
                        f"the body has more than {limits.bytes} bytes; send fewer or smaller "
                        "images",
                    )
                take(chunk)
    except TimeoutError:
        raise Refusal(408, f"the body took more than {limits.upload:g} s to arrive") from None


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


def _name_in(disposition: bytes, number: int) -> str:
    """Return what a file is called by its Content-Disposition, or else by its number."""
    _, options = parse_options_header(disposition)
    return options.get(b"filename", b"").decode("utf-8", "replace") or f"image {number}"


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
        name = _name_in(self._disposition, len(self.uploads))
        self.uploads.append(Upload(name, bytearray()))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.uploads[-1].data += data[start:end]

    def _on_end(self) -> None:
        self.whole = True
