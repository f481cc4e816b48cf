"""Find, decode and frame images: from paths or arrays to what the network sees, and back."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import SpadeError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""What Pillow is asked to decode; some of its other formats start programs."""
MIN_SIDE = 16
"""The smallest side, in pixels, from which a pyramid of features still means something."""
_HUGE = (1 << 30, 1 << 30)


@dataclass(frozen=True)
class Frame:
    """A decoded image that has a name though no file is its own, such as a video's frame.

    Attributes
    ----------
    name : str
    image : uint8 [H, W, 3], RGB
    seconds : float
        When it is shown, from the video's start.
    """

    name: str
    image: npt.NDArray[np.uint8]
    seconds: float = 0.0


Source = str | os.PathLike[str] | npt.NDArray[np.uint8] | Frame
Sample = TypeVar("Sample", bound=np.generic)
Prepared = TypeVar("Prepared")
OnError = Callable[[str, str], None]
"""Called with the name of an image that could not be used and one line that says why."""


def report_problem(on_error: OnError | None, name: str, why: str) -> None:
    """Call `on_error`, or raise the line where there is none to call."""
    if on_error is None:
        raise SpadeError(f"{name}: {why}") from None
    on_error(name, why)


@dataclass(frozen=True)
class Found:
    """An image file; `relative` is its path within `folder`, if a folder was searched for it."""

    path: Path
    relative: Path
    folder: Path | None


@dataclass(frozen=True)
class Framing:
    """How an image is brought to the network's input size, and how a map is brought back.

    With `crop`, the shorter side becomes `resize` pixels, the aspect stays, and the centre
    is cut out (the paper's protocol, section 4.1: 256 and 224). Without, the whole frame is
    stretched to `size`, so that nothing at the edge is cut off.

    Attributes
    ----------
    resize : int
        Length of the shorter side after resizing, in pixels.
    size : (int, int)
        Height and width of the network's input, in pixels.
    crop : bool
        Whether the input is a centre crop of the resized image or the whole of it.
    """

    resize: int
    size: tuple[int, int]
    crop: bool

    @classmethod
    def choose(cls, resize: int, crop: int | None, first: tuple[int, int]) -> Framing:
        """Return the framing for a data set whose first image has height and width `first`.

        Raises
        ------
        SpadeError
            If `crop` does not fit into `resize`, or either is too small for the network.
        """
        if crop is not None:
            if not 32 <= crop <= resize:
                raise SpadeError(f"crop {crop} must lie between 32 and the resize of {resize}")
            return cls(resize, (crop, crop), True)
        if resize < 32:
            raise SpadeError(f"resize {resize} is too small: choose 32 or more")
        height, width = first
        longer = resize * max(first) / min(first)
        # Whole cells of the coarsest level: the stretch is at most 16 pixels of the longer side.
        longer = max(resize, 32 * round(longer / 32))
        return cls(resize, (resize, longer) if width >= height else (longer, resize), False)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not self.crop:
            return self.size
        scale = self.resize / min(height, width)
        return max(self.resize, round(height * scale)), max(self.resize, round(width * scale))

    def _affine(self, height: int, width: int) -> tuple[tuple[float, float], tuple[int, int]]:
        """Return original pixels per input pixel, and the crop's corner in the resized image."""
        rows, cols = self._resized(height, width)
        corner = (rows - self.size[0]) // 2, (cols - self.size[1]) // 2
        return (height / rows, width / cols), corner

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the network's input `[h, w, C]` for an image or mask `[H, W, C]`."""
        height, width = image.shape[:2]
        rows, cols = self._resized(height, width)
        shrinks = rows * cols < height * width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized: npt.NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
            image, (cols, rows), interpolation=how
        )
        return self._cut(resized)

    def apply_mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return a mask `[H, W]` framed like its image, by nearest pixel, `[h, w]`."""
        rows, cols = self._resized(*mask.shape)
        y = _nearest_index(rows, mask.shape[0])
        x = _nearest_index(cols, mask.shape[1])
        return self._cut(mask[y[:, None], x[None, :]])

    def _cut(self, resized: npt.NDArray[Sample]) -> npt.NDArray[Sample]:
        h, w = self.size
        top, left = (resized.shape[0] - h) // 2, (resized.shape[1] - w) // 2
        return np.ascontiguousarray(resized[top : top + h, left : left + w])

    def seen(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the box (left, top, right, bottom) of an image that the network sees."""
        left, top, right, bottom = self.to_original((0, 0, self.size[1], self.size[0]),
                                                    (height, width))
        return (max(0, round(left)), max(0, round(top)),
                min(width, round(right)), min(height, round(bottom)))

    def to_original(
        self, box: tuple[float, float, float, float], original: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Return a box (left, top, right, bottom) of the input in pixels of the original."""
        (sy, sx), (top, left) = self._affine(*original)
        x0, y0, x1, y1 = box
        return (x0 + left) * sx, (y0 + top) * sy, (x1 + left) * sx, (y1 + top) * sy

    def to_input(self, point: tuple[int, int], original: tuple[int, int]) -> tuple[int, int]:
        """Return the input pixel (x, y) that lies under pixel (x, y) of the original."""
        (sy, sx), (top, left) = self._affine(*original)
        x = int((point[0] + 0.5) / sx - left)
        y = int((point[1] + 0.5) / sy - top)
        return min(max(x, 0), self.size[1] - 1), min(max(y, 0), self.size[0] - 1)

    def place(self, values: npt.NDArray[np.float32], original: tuple[int, int]
              ) -> npt.NDArray[np.float32]:
        """Return a map of the input `[h, w]` on the original's pixel grid `[H, W]`.

        Bilinear between the centres of input pixels. What the crop left out was never looked
        at and is 0, which no distance is below.
        """
        (sy, sx), (top, left) = self._affine(*original)
        x0, y0, x1, y1 = self.seen(*original)
        down = _taps(np.arange(y0, y1), sy, top, self.size[0])
        right = _taps(np.arange(x0, x1), sx, left, self.size[1])
        below, beside = down[2][:, None], right[2]
        rows = values[down[0]] * (1 - below) + values[down[1]] * below
        seen: npt.NDArray[np.float32]
        seen = np.asarray(rows[:, right[0]] * (1 - beside) + rows[:, right[1]] * beside, np.float32)
        if seen.shape == tuple(original):
            return seen
        placed = np.zeros(original, np.float32)
        placed[y0:y1, x0:x1] = seen
        return placed


def _nearest_index(size: int, original: int) -> npt.NDArray[np.intp]:
    return np.minimum(((np.arange(size) + 0.5) * (original / size)).astype(np.intp), original - 1)


def _taps(
    pixels: npt.NDArray[np.intp], scale: float, offset: int, size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the two input rows that surround each original row's centre, and the weight."""
    at = np.clip((pixels + 0.5) / scale - offset - 0.5, 0, size - 1)
    low = at.astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


def find_images(
    arguments: Iterable[str | os.PathLike[str]], on_error: OnError,
    suffixes: Collection[str] = SUFFIXES,
) -> list[Found]:
    """Return the image files that the arguments name, folders searched to any depth.

    Files of one folder are in sorted order; hidden files are passed over, and so is what has
    none of the suffixes. A named file is taken whatever its suffix: decoding will tell.

    Raises
    ------
    SpadeError
        If a named file or folder does not exist.
    """
    found: list[Found] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            found += _walk(argument, on_error, suffixes)
        elif argument.exists():
            found.append(Found(argument, Path(argument.name), None))
        else:
            raise SpadeError(f"{argument}: no such file or folder")
    return found


def _walk(root: Path, on_error: OnError, suffixes: Collection[str]) -> Iterator[Found]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if Path(name).suffix.lower() in suffixes]:
            on_error(str(Path(folder, name)), "is a folder with a file's name; rename it")
            folders.remove(name)
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in suffixes:
                yield Found(path, path.relative_to(root), root)


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode an image file to RGB `[H, W, 3]`, uint8, turned upright as its EXIF tag says.

    Grey becomes three equal channels, alpha is dropped, and 16-bit samples are scaled by
    255/65535 (never stretched to the image's own range: brightness carries information).

    Raises
    ------
    SpadeError
        If the file cannot be read, is no image, is cut short, holds floating-point samples or
        is smaller than 16 pixels a side.
    """
    try:
        if not S_ISREG(Path(path).stat().st_mode):  # to open a pipe would wait for ever
            raise SpadeError("is no file that holds an image, but a pipe, device or folder")
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpadeError(f"cannot be read: {error.strerror}") from None
    return decode_image(data)


def decode_image(data: bytes | bytearray) -> npt.NDArray[np.uint8]:
    """Decode an image file's bytes as `read_image` does, and raise what it raises."""
    if not data:
        raise SpadeError("is empty (0 bytes); copy it again")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            image = _to_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        image = _decode_rarer(data)
    except Image.DecompressionBombError:
        raise SpadeError("has too many pixels to be decoded safely; scale it down") from None
    except SpadeError:
        raise
    except Exception as error:  # of any kind: decoders do not say what damage makes them raise
        raise SpadeError(f"is damaged or cut short ({_first_line(error)}); copy it again") from None
    return _checked_size(image)


def image_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return an image's height and width as its header has them; no pixel is decoded.

    None if the bytes are no PNG, JPEG, BMP, TIFF or WebP image. What an EXIF tag says of
    turning is not applied.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return opened.height, opened.width
    except Image.DecompressionBombError:
        return _HUGE
    except Exception:  # see decode_image
        pass
    try:  # such as 16-bit RGB
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth
    except Exception:
        return None


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.dtype.itemsize > 2:
            if grey.min() < 0 or grey.max() > 65535:
                raise SpadeError("holds 32-bit samples; convert it to 8 or 16 bits")
            grey = grey.astype(np.uint16)
        return _grey_to_rgb(_to_8_bit(grey))
    if image.mode == "F":
        raise SpadeError("holds floating-point samples; convert it to 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def _decode_rarer(data: bytes | bytearray) -> npt.NDArray[np.uint8]:
    """Decode what Pillow does not know and OpenCV does, such as 16-bit RGB TIFF."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise SpadeError("is not an image that can be decoded (PNG, JPEG, BMP, TIFF or WebP)")
    if image.dtype.kind != "u":
        raise SpadeError("holds floating-point samples; convert it to 8 or 16 bits")
    if image.dtype.itemsize > 2:
        raise SpadeError("holds 32-bit samples; convert it to 8 or 16 bits")
    return np.ascontiguousarray(_to_8_bit(image)[:, :, ::-1])


def _to_8_bit(samples: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if samples.dtype.itemsize == 1:
        return samples.astype(np.uint8, copy=False)
    return np.round(samples.astype(np.float32) * np.float32(255 / 65535)).astype(np.uint8)


def _grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _checked_size(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise SpadeError(
            f"is {width}x{height} pixels; an image needs at least {MIN_SIDE} pixels a side"
        )
    return image


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _as_image(source: Source) -> npt.NDArray[np.uint8]:
    if isinstance(source, Frame):
        source = source.image
    if not isinstance(source, np.ndarray):
        return read_image(source)
    if source.dtype != np.uint8:
        raise SpadeError(f"has samples of type {source.dtype}; pass uint8")
    if source.ndim == 2:
        source = _grey_to_rgb(source)
    if source.ndim != 3 or source.shape[2] != 3:
        raise SpadeError(f"has shape {source.shape}; pass RGB as [H, W, 3]")
    return _checked_size(source)


@dataclass(frozen=True)
class Loaded:
    """One decoded image.

    Attributes
    ----------
    position : int
        Place in the caller's list.
    name : str
    image : uint8 [H, W, 3]
    input : uint8 [h, w, 3]
        The image framed for the network.
    """

    position: int
    name: str
    image: npt.NDArray[np.uint8]
    input: npt.NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


def name_of(source: Source, position: int) -> str:
    """Return what an image is called in messages and results: its path, or its number."""
    if isinstance(source, Frame):
        return source.name
    return f"image {position}" if isinstance(source, np.ndarray) else os.fspath(source)


def load_images(
    sources: Iterable[Source], framing: Framing, on_error: OnError | None = None,
    workers: int | None = None,
) -> Iterator[Loaded]:
    """Decode and frame images in worker threads, a few ahead of the caller, in order.

    Parameters
    ----------
    sources : iterable of paths, uint8 arrays or frames
        Gone through once, a few ahead of the caller, so that a stream of any length may be
        passed.
    framing : Framing
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used, which is then left out.
        Without it the first such image raises SpadeError.
    workers : int, optional
        Decoding threads; by default one a core, at most 8.
    """

    def prepare(source: Source) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        image = _as_image(source)
        return image, framing.apply(image)

    for position, name, (image, framed) in _prepared(sources, prepare, on_error, workers):
        yield Loaded(position, name, image, framed)


def decode_images(
    sources: Iterable[Source], on_error: OnError | None = None, workers: int | None = None
) -> Iterator[tuple[int, Frame]]:
    """Decode images for several detectors: yield the place of each, and the image by its name.

    Parameters as in `load_images`.
    """
    for position, name, image in _prepared(sources, _as_image, on_error, workers):
        yield position, Frame(name, image)


def _prepared(
    sources: Iterable[Source], prepare: Callable[[Source], Prepared], on_error: OnError | None,
    workers: int | None,
) -> Iterator[tuple[int, str, Prepared]]:
    """Yield the place and name of each image and what is made of it, as `load_images` does."""
    workers = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[int, str, Future[Prepared]]] = deque()
        waiting = enumerate(sources)
        try:
            while True:
                for place, source in islice(waiting, 2 * workers + 1 - len(ahead)):
                    ahead.append((place, name_of(source, place), pool.submit(prepare, source)))
                if not ahead:
                    return
                position, name, future = ahead.popleft()
                try:
                    prepared = future.result()
                except SpadeError as error:
                    report_problem(on_error, name, str(error))
                    continue
                yield position, name, prepared
        finally:
            for _, _, future in ahead:
                future.cancel()


def first_size(
    sources: Iterable[Source]
) -> tuple[tuple[int, int] | None, Iterable[Source]]:
    """Return the height and width of the first image that can be decoded, and all the images.

    A list stays one.
    """
    stream = iter(sources)
    seen: list[Source] = []
    for source in stream:
        seen.append(source)
        try:
            size = _as_image(source).shape[:2]
            return size, sources if isinstance(sources, Sequence) else chain(seen, stream)
        except SpadeError:
            continue
    return None, iter(seen)
