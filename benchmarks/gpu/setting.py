"""What all parts share: the device, the images and the network."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from skimage import data

from .timing import Clock

Pixels = npt.NDArray[np.uint8]
Result = dict[str, Any]

NETWORK = "wide_resnet50_2"
SMALL = "resnet18"
"""For a rehearsal without weights."""
_THREADS = 8


def textures(count: int, seed: int, side: int = 256) -> Pixels:
    """Return views uint8 [count, side, side, 3] of photographs, tinted and with noise.

    The first are the same, however many there are.
    """
    photo = data.gravel()
    views = np.empty((count, side, side, 3), np.uint8)

    def fill(at: int) -> None:
        random = np.random.default_rng((seed, at))
        y, x = random.integers(0, [photo.shape[0] - side, photo.shape[1] - side])
        tinted = photo[y : y + side, x : x + side, None] * random.uniform(0.8, 1, 3)
        views[at] = np.clip(tinted + random.normal(0, 2, tinted.shape), 0, 255)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fill, range(count)))
    return views


@dataclass(frozen=True)
class Setting:
    """What all parts share.

    Attributes
    ----------
    args : argparse.Namespace
        See `options`; `folder` is where all parts find the random weights.
    device : torch.device
    side, crop : int
        Pixels of an image, and of what the network sees of it.
    backbone : str
        One of `spade_faiss.features.resnet.RESNETS`.
    """

    args: argparse.Namespace
    device: torch.device
    side: int
    crop: int
    backbone: str = NETWORK

    @classmethod
    def of(cls, args: argparse.Namespace) -> Setting:
        """Return the setting; a rehearsal is small and on the CPU."""
        if args.rehearse:
            return cls(args, torch.device("cpu"), 80, 64, NETWORK if args.weights else SMALL)
        return cls(args, torch.device("cuda"), 256, 224)

    @property
    def clock(self) -> Clock:
        """What measures on the device."""
        return Clock(self.device)

    def sized(self, whole: int, rehearsed: int) -> int:
        """Return a number, or the smaller one of a rehearsal."""
        return rehearsed if self.args.rehearse else whole

    @property
    def shape(self) -> Result:
        """What to say in each result on what was searched, and by which network."""
        return {
            "network": self.backbone,
            "k": self.args.k,
            "train_images": self.args.train,
            "weights": self.args.weights or "random (seed 0, batch normalisation fitted)",
        }

    # Images -----------------------------------------------------------------------------------

    def views(self, count: int, seed: int) -> Pixels:
        """Return images of the setting's size."""
        return textures(count, seed, self.side)

    def framed(self, images: Pixels) -> Pixels:
        """Return images [n, H, W, 3] as the network sees them."""
        edge = (self.side - self.crop) // 2
        return np.ascontiguousarray(images[:, edge : -edge or None, edge : -edge or None])

    def write_views(self, folder: Path, count: int, seed: int) -> list[str]:
        """Write images as PNG files; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [str(folder / f"{i:04}.png") for i in range(count)]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(cv2.imwrite, paths, self.views(count, seed)))
        return paths

    # The network ------------------------------------------------------------------------------

    def weights(self) -> Path:
        """Return a checkpoint: the one that was passed, or a random one, made when first needed."""
        if self.args.weights:
            return Path(self.args.weights)
        path = Path(self.args.folder, f"{self.backbone}.safetensors")
        if not path.exists():
            part = path.with_suffix(".part")
            save_file(self._random_state(), part)
            part.replace(path)
        return path

    def state(self) -> dict[str, torch.Tensor]:
        """Return the checkpoint's tensors, on the CPU."""
        path = self.weights()
        if path.suffix == ".safetensors":
            return load_file(path)
        found: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return found

    def _random_state(self) -> dict[str, torch.Tensor]:
        from spade_faiss.features.resnet import RESNETS

        torch.manual_seed(0)
        network = RESNETS[self.backbone]().to(self.device).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            pixels = torch.from_numpy(self.framed(self.views(8, 9))).to(self.device).float()
            network((pixels.permute(0, 3, 1, 2) / 255 - 0.45) / 0.23)
        return {name: value.contiguous().cpu() for name, value in network.state_dict().items()}

    def network(self) -> Any:
        """Return the network on the device."""
        from spade_faiss.features import load_backbone

        return load_backbone(self.backbone, self.weights(), str(self.device))

    def features(self, network: Any, images: Pixels) -> list[Any]:
        """Return the features of framed images, 16 at a time."""
        return [network(images[at : at + 16]) for at in range(0, len(images), 16)]

    def detector(self, batch_size: int) -> Any:
        """Return a `Spade` that is not fitted yet."""
        from spade_faiss import Spade

        return Spade(
            self.backbone,
            self.args.k,
            weights=self.weights(),
            resize=self.side,
            crop=self.crop,
            device=str(self.device),
            batch_size=batch_size,
        )

    @contextmanager
    def fitted(
        self, batch_size: int, *, calibrate: bool = True
    ) -> Iterator[tuple[Any, float, Path]]:
        """Learn the training images from files.

        Yields
        ------
        spade : Spade
        seconds : float
            That learning took.
        folder : Path
            To write other files into; it goes at the end.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            self.write_views(folder / "train", self.args.train, 1)
            spade = self.detector(batch_size)
            seconds = self.clock.host_seconds(
                lambda: spade.fit(folder / "train", index=folder / "index", calibrate=calibrate)
            )
            yield spade, seconds, folder
