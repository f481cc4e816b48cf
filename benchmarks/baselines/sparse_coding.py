"""Sparse codes of the patches of frames, each found from the frame before: TSC and StackRNN.

A frame is described by patches of several sizes. Grids, of 1 x 1, 2 x 2, 4 x 4 cells, lie over the
coarsest level of a pretrained network, and each cell is a patch, described by its mean feature. A
patch is coded by itself, in the order of a clip's frames.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from spade_faiss.errors import SpadeError

from .method import Floats, some_of
from .training import Schedule, key_of, seeded, train
from .video import Footage, VideoMethod

_AT_ONCE = 8
"""So many frames are described together."""
_TINY = 1e-12


@dataclass(frozen=True)
class CodingSetting:
    """Settings of a method that codes patches.

    Attributes
    ----------
    schedule : Schedule
        Of the training; a batch is of so many windows.
    atoms : int
        Rows of the dictionary.
    every : int
        Each so many-th frame of a good clip is learnt from.
    layers : int
        Steps of soft-thresholding a frame.
    sparsity, coherence : float
        How much the code's absolute sum counts, and how much its change from the frame before.
    length : int
        Frames of a window of training.
    grids : tuple of int
        Cells a side of each grid of patches.
    """

    schedule: Schedule
    atoms: int
    every: int
    layers: int
    sparsity: float = 0.1
    coherence: float = 0.01
    length: int = 10
    grids: tuple[int, ...] = (1, 2, 4)


def soft_thresholded(
    inputs: Tensor,
    before: Tensor,
    pull: Tensor,
    dictionary: Tensor,
    step: Tensor,
    sparsity: Tensor | float,
    layers: int,
) -> Tensor:
    """Return sparse codes of inputs, found in some steps from those of the frame before.

    Each step goes down the slope of ½‖x - a D‖² + ½ s ‖a - b‖² at the code a, b being the code
    before and s the pull, and then shrinks the code for the sake of its absolute sum.

    Parameters
    ----------
    inputs : [n, C]
    before : [n, atoms]
    pull : [n, 1]
    dictionary : [atoms, C]
    step : scalar
        Codes converge if it is less than twice the inverse of the largest eigenvalue of D Dᵀ.
    sparsity : scalar
    layers : int

    Returns
    -------
    [n, atoms]
    """
    seen, gram = inputs @ dictionary.T, dictionary @ dictionary.T
    codes = before
    for _ in range(layers):
        moved = codes - step * (codes @ gram - seen + pull * (codes - before))
        codes = moved.sign() * (moved.abs() - step * sparsity).relu()
    return codes


class Coder(nn.Module):
    """Codes inputs [n, C] one frame after another, and gives them back from their codes."""

    atoms: int

    @abstractmethod
    def encode(self, inputs: Tensor, before: Tensor, similarity: Tensor) -> Tensor:
        """Return codes [n, atoms], given those before and how similar the inputs are, [n, 1]."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return what codes [n, atoms] stand for, [n, C]."""

    def forward(self, windows: Tensor, similarity: Tensor) -> Tensor:
        """Return the codes [T, n, atoms] of windows [T, n, C]; similarities are [T - 1, n, 1]."""
        codes = [self.first(windows[0])]
        for inputs, alike in zip(windows[1:], similarity, strict=True):
            codes.append(self.encode(inputs, codes[-1], alike))
        return torch.stack(codes)

    def first(self, inputs: Tensor) -> Tensor:
        """Return the codes of a first frame, before which there is nothing."""
        nothing = inputs.new_zeros(len(inputs), self.atoms)
        return self.encode(inputs, nothing, inputs.new_zeros(len(inputs), 1))


class PatchCoder(VideoMethod):
    """Learns to code the patches of good frames; what codes do not give back is unusual.

    Attributes
    ----------
    trained : Coder
        After `fit`.
    """

    setting: CodingSetting
    trained: Any  # a Coder, whose parts are called

    @abstractmethod
    def make(self, rows: Tensor) -> Coder:
        """Return the coder, untrained, that starts from patches of good frames [atoms, C]."""

    @abstractmethod
    def loss(self, windows: Tensor, similarity: Tensor) -> Tensor:
        """Return what is made smaller over windows; see `Coder.forward`."""

    def fit(self, clips: Sequence[Footage]) -> None:
        """Train on random windows of good clips."""
        setting = self.setting
        with TemporaryFile() as file:
            lengths = self._write(clips, file)
            if not sum(lengths):
                raise SpadeError("there are no frames to learn from")
            frames = np.memmap(file, np.float32, "r").reshape(sum(lengths), self._patches, -1)
            starts = [
                first + number
                for first, length in zip(np.cumsum([0, *lengths]), lengths, strict=False)
                for number in range(length - setting.length + 1)
            ]
            if not starts:
                need = (setting.length - 1) * setting.every + 1
                raise SpadeError(f"no good clip has {need} frames, which are needed to learn from")
            self._measure(frames, starts)
            rows = some_of(frames.reshape(-1, frames.shape[-1]), setting.atoms, self.seed)
            chosen = self._inputs(rows)
            self.trained = seeded(lambda: self.make(chosen), self.seed).to(self.network.device)

            def loss(step: int) -> Tensor:
                rng = np.random.default_rng((self.seed, step))
                firsts = rng.choice(starts, setting.schedule.batch)
                shown = frames[firsts + np.arange(setting.length)[:, None]]
                windows = self._inputs(shown.reshape(setting.length, -1, frames.shape[-1]))
                return self.loss(windows, self._similarity(windows[:-1], windows[1:]))

            key = key_of(self, (frame.view(np.uint8) for frame in frames))
            self.taken_up = train(self.trained, loss, setting.schedule, self.checkpoint, key)

    @torch.inference_mode()
    def scores(self, clip: Footage) -> Floats:
        """Return each frame's mean, over the grids, of the worst patch's squared error."""
        scores = []
        sizes = [cells**2 for cells in self.setting.grids]
        last = codes = None
        for described in self._described(clip, 1):
            inputs = self._inputs(described)
            if last is None or codes is None:
                codes = self.trained.first(inputs)
                last = inputs
                for _ in range(self.setting.length):  # until the codes have settled
                    codes = self.trained.encode(inputs, codes, self._similarity(inputs, inputs))
            codes = self.trained.encode(inputs, codes, self._similarity(last, inputs))
            errors = (inputs - self.trained.decode(codes)).square().sum(1)
            scores.append(torch.stack([one.amax() for one in errors.split(sizes)]).mean())
            last = inputs
        if not scores:
            raise SpadeError(f"{clip.name} has no frames, and 1 is needed to judge it")
        return torch.stack(scores).cpu().numpy()

    @property
    def _patches(self) -> int:
        return sum(cells**2 for cells in self.setting.grids)

    def _write(self, clips: Sequence[Footage], file: IO[bytes]) -> list[int]:
        """Write the patches of frames to learn from, and return each clip's number of frames."""
        lengths = []
        for clip in tqdm(clips, "describing", disable=None, leave=False):
            lengths.append(0)
            for described in self._described(clip, self.setting.every):
                file.write(described.tobytes())
                lengths[-1] += 1
        file.flush()
        return lengths

    def _described(self, clip: Footage, every: int) -> Iterator[Floats]:
        """Yield the patches [patches, C] of each so many-th frame of a clip."""
        frames = islice(clip, 0, None, every)
        while images := [frame.image for frame in islice(frames, _AT_ONCE)]:
            level = self.network(np.stack(images)).levels[-1].permute(0, 3, 1, 2)
            grids = [nn.functional.adaptive_avg_pool2d(level, n) for n in self.setting.grids]
            patches = torch.cat([grid.flatten(2) for grid in grids], 2).transpose(1, 2)
            yield from patches.contiguous().cpu().numpy()

    def _measure(self, frames: Floats, starts: Sequence[int]) -> None:
        """Learn what features are brought to mean 0 and a mean square of 1 by, and how they change.

        Means of squares are over patches, and sums over channels.
        """
        total = np.zeros(frames.shape[-1])
        squares = 0.0
        for frame in frames:
            total += frame.sum(0, np.float64)
            squares += float(np.square(frame, dtype=np.float64).sum())
        count = len(frames) * self._patches
        mean = total / count
        device = self.network.device
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)
        self._spread = max(squares / count - float(mean @ mean), _TINY) ** 0.5
        changes = [np.square(frames[at + 1] - frames[at]).sum(1).mean() for at in starts]
        self._change = max(float(np.mean(changes)) / self._spread**2, _TINY)

    def _inputs(self, patches: Floats) -> Tensor:
        plain = torch.from_numpy(np.array(patches)).to(self.network.device)
        inputs: Tensor = (plain - self._mean) / self._spread
        return inputs

    def _similarity(self, before: Tensor, inputs: Tensor) -> Tensor:
        """Return how similar patches are to those of the frame before, 0 to 1, [..., 1]."""
        moved = (inputs - before).square().sum(-1, keepdim=True)
        similarity: Tensor = (-moved / self._change).exp()
        return similarity
