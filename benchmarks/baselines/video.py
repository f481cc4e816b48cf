"""What every method on video can do: learn from good clips, and score each frame of another.

A clip is read frame by frame, and again where a method needs it again. No method keeps one whole:
what is trained on is shrunk into a nameless file first, and a clip that is scored passes by.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from spade_faiss.errors import SpadeError
from spade_faiss.images import Frame

from .method import Baseline, Floats, Image
from .training import Schedule, key_of, seeded, train

_AT_ONCE = 4
"""So many windows of a clip are judged together."""


@dataclass(frozen=True)
class Footage:
    """A clip that is read anew each time it is gone through.

    Attributes
    ----------
    name : str
    read : callable
        Returns the frames in order. Their seconds are true to those of other clips.
    """

    name: str
    read: Callable[[], Iterable[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.read())


class VideoMethod(Baseline):
    """A way of finding unusual frames that is shown clips without any."""

    @abstractmethod
    def fit(self, clips: Sequence[Footage]) -> None:
        """Learn from clips without anomalies.

        Raises
        ------
        SpadeError
            If there is nothing to learn from.
        """

    @abstractmethod
    def scores(self, clip: Footage) -> Floats:
        """Return how anomalous each frame of a clip is, float32 [frames].

        Raises
        ------
        SpadeError
            If the clip is too short to be judged.
        """


def shrunk(image: Image, size: tuple[int, int], colours: int = 1) -> Image:
    """Return an image [H, W, 3] at another height and width, grey or not, [h, w, colours]."""
    if colours == 1:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    small = np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    return small.reshape(*size, colours)


class Stack:
    """The frames of several clips, shrunk, in a nameless file that is mapped, not in memory.

    Parameters
    ----------
    clips : sequence of Footage
    size : (height, width)
    colours : 1 or 3

    Attributes
    ----------
    frames : uint8 [n, height, width, colours]
    lengths : list of int
        How many of them are of each clip.

    Raises
    ------
    SpadeError
        If there is no frame.
    """

    def __init__(self, clips: Sequence[Footage], size: tuple[int, int], colours: int = 1) -> None:
        self.lengths: list[int] = []
        self._file = TemporaryFile()  # noqa: SIM115
        for clip in tqdm(clips, "reading", disable=None, leave=False):
            self.lengths.append(0)
            for frame in clip:
                self._file.write(shrunk(frame.image, size, colours).tobytes())
                self.lengths[-1] += 1
        if not sum(self.lengths):
            raise SpadeError("there are no frames to learn from")
        self._file.flush()
        shape = sum(self.lengths), *size, colours
        self.frames: npt.NDArray[np.uint8] = np.memmap(self._file, np.uint8, "r", shape=shape)

    def starts(self, span: int) -> npt.NDArray[np.int64]:
        """Return the first frames of all that last `span` frames and lie in one clip."""
        firsts = np.cumsum([0, *self.lengths[:-1]])
        each = [
            first + np.arange(max(0, length - span + 1))
            for first, length in zip(firsts, self.lengths, strict=True)
        ]
        return np.concatenate(each)

    def mean(self) -> Floats:
        """Return the mean frame, [height, width, colours], values 0 to 255."""
        total = np.zeros(self.frames.shape[1:], np.float64)
        for frame in self.frames:
            total += frame
        return (total / len(self.frames)).astype(np.float32)


@dataclass(frozen=True)
class WindowSetting:
    """Settings of a network that is trained on windows of frames.

    Attributes
    ----------
    schedule : Schedule
    size : (height, width)
        Of the frames that it sees.
    channels : int
        Of the first convolution; the others' follow.
    hop : int
        Frames from one window of a clip that is judged to the next.
    patch : int
        A frame is scored by the patch of so many pixels a side that is given back worst; 0 for
        the whole frame.
    centred : bool
        Whether the mean good frame is taken off, so that no training is spent on the background.
    """

    schedule: Schedule
    size: tuple[int, int]
    channels: int
    hop: int
    patch: int = 0
    centred: bool = False


class WindowNetwork(VideoMethod):
    """Trains a network on windows of frames, and scores a frame by all windows that it is in.

    Attributes
    ----------
    length : int
        Frames of a window.
    ahead : int
        Frames after a window that training needs, too.
    steps : tuple of int
        A window of training takes each frame, or every second one …
    colours : 1 or 3
    trained : nn.Module
        The network, after `fit`.
    """

    length: ClassVar[int]
    ahead: ClassVar[int] = 0
    steps: ClassVar[tuple[int, ...]] = (1,)
    colours: ClassVar[int] = 1
    setting: WindowSetting
    trained: Any  # whose parts, which `make` knows, are called

    @abstractmethod
    def make(self) -> nn.Module:
        """Return the network, untrained."""

    @abstractmethod
    def loss(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return what is made smaller over windows [B, colours, length + ahead, h, w]."""

    @abstractmethod
    def errors(self, windows: Tensor) -> Tensor:
        """Return how badly pixels of windows [B, colours, length, h, w] are given back.

        Returns
        -------
        float32 [B, length, h, w]
        """

    def fit(self, clips: Sequence[Footage]) -> None:
        """Train on random windows of good clips."""
        setting = self.setting
        stack = Stack(clips, setting.size, self.colours)
        span = self.length + self.ahead
        starts = [stack.starts((span - 1) * step + 1) for step in self.steps]
        steps = np.repeat(self.steps, [len(one) for one in starts])
        firsts = np.concatenate(starts)
        if not len(firsts):
            raise SpadeError(f"no good clip has {span} frames, which are needed to learn from")
        self._mean = self._tensor(stack.mean()[None])[:, :, None] * setting.centred
        self.trained = seeded(self.make, self.seed).to(self.network.device)
        self.before(stack)

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng((self.seed, step))
            chosen = rng.integers(0, len(firsts), setting.schedule.batch)
            places = firsts[chosen][:, None] + steps[chosen][:, None] * np.arange(span)
            return self.loss(self._windows(stack.frames[places]), rng)

        self.taken_up = train(
            self.trained, loss, setting.schedule, self.checkpoint, key_of(self, stack.frames)
        )
        self.after(stack)

    def scores(self, clip: Footage) -> Floats:
        """Return the frames' errors, each the mean of the windows that it is in."""
        total: list[float] = []
        times: list[int] = []
        for places, windows in self._batches(clip):
            found = self.pooled(windows)
            for first, own in zip(places, found, strict=True):
                more = first + len(own) - len(total)
                total += [0.0] * more
                times += [0] * more
                for number, value in enumerate(own, first):
                    total[number] += float(value)
                    times[number] += 1
        return (np.array(total) / times).astype(np.float32)

    def before(self, stack: Stack) -> None:
        """Do what a method needs before its training."""

    def after(self, stack: Stack) -> None:
        """Do what a method needs after its training."""

    @torch.inference_mode()
    def pooled(self, frames: npt.NDArray[np.uint8]) -> Floats:
        """Return the frames' errors in windows uint8 [B, length, h, w, colours], [B, length]."""
        maps = self.errors(self._windows(frames))
        if not self.setting.patch:
            return maps.mean((2, 3)).cpu().numpy()
        side = self.setting.patch
        patches = nn.functional.avg_pool2d(maps, side, max(1, side // 2))
        return patches.amax((2, 3)).cpu().numpy()

    def _batches(self, clip: Footage) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
        """Yield first frames and windows of a clip, so that each frame is in one at least."""
        setting, kept, batch = self.setting, deque[Image](maxlen=self.length), []
        number, due = 0, self.length
        for frame in clip:
            kept.append(shrunk(frame.image, setting.size, self.colours))
            number += 1
            if number == due:
                batch.append((number - self.length, np.stack(kept)))
                due += setting.hop
            if len(batch) == _AT_ONCE:
                yield _joined(batch)
                batch = []
        if number < self.length:
            raise SpadeError(
                f"{clip.name} has {number} frames, and {self.length} are needed to judge them"
            )
        if due - setting.hop < number:
            batch.append((number - self.length, np.stack(kept)))
        if batch:
            yield _joined(batch)

    def _windows(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Return windows uint8 [B, T, h, w, colours] as the network takes them."""
        flat = self._tensor(frames.reshape(-1, *frames.shape[2:]))
        windows: Tensor = flat.unflatten(0, frames.shape[:2]).transpose(1, 2)
        return windows - self._mean

    def _tensor(self, images: npt.NDArray[np.generic]) -> Tensor:
        """Return images [n, h, w, colours], values 0 to 255, as float32 [n, colours, h, w]."""
        plain = torch.from_numpy(np.array(images)).to(self.network.device)
        values: Tensor = plain.permute(0, 3, 1, 2).float() / 255
        return values


def _joined(
    batch: Sequence[tuple[int, npt.NDArray[np.uint8]]],
) -> tuple[list[int], npt.NDArray[np.uint8]]:
    places, windows = zip(*batch, strict=True)
    return list(places), np.stack(windows)
