"""A pretrained network as a function from uint8 images to features."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .._support.memory import is_shortage
from ..errors import SpadeError
from .convnext import CONVNEXTS, with_own_names
from .efficientnet import LITES, EfficientNetLite, packaged_weights
from .libraries import LIBRARIES
from .resnet import RESNETS
from .vit import VIT_CHECKPOINTS, VITS, VisionTransformer
from .weights import fetch, from_cache, load_into, read_state_dict, sha256_of


@dataclass(frozen=True)
class Architecture:
    """A kind of network, and where its published weights are.

    Attributes
    ----------
    make : callable
        Returns the untrained network; see `Backbone`.
    published : callable
        Returns the path of the published weights.
    mean, std : three floats each
        What the network expects of images; see `Backbone`.
    renamed : callable
        Returns a checkpoint by the network's own names.
    cell : int
        See `Backbone`.
    """

    make: Callable[[], nn.Module]
    published: Callable[[], Path]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    renamed: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    cell: int = 16


_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_ANY_CELL = 32
"""Whole patches of most networks that a library has."""

ARCHITECTURES = (
    {name: Architecture(make, partial(fetch, name), *_IMAGENET) for name, make in RESNETS.items()}
    | {
        name: Architecture(partial(EfficientNetLite, name), partial(packaged_weights, name), *_HALF)
        for name in LITES
    }
    | {
        name: Architecture(make, partial(fetch, name), *_IMAGENET, with_own_names)
        for name, make in CONVNEXTS.items()
    }
    | {
        name: Architecture(
            make,
            partial(from_cache, VIT_CHECKPOINTS[name], name),
            *_IMAGENET,
            cell=VisionTransformer.patch,
        )
        for name, make in VITS.items()
    }
)
"""The networks that `load_backbone` knows, by name."""
BACKBONES = tuple(ARCHITECTURES)
"""Their names."""
DEFAULT_BACKBONE = "wide_resnet50_2"
"""The paper's."""


@dataclass(frozen=True)
class Features:
    """What a network sees in B images.

    Attributes
    ----------
    descriptors : float32 tensor [B, D]
        The last layer, averaged over the image.
    levels : tuple of float32 tensors [B, h, w, C]
        Patch features, from the finest level to the coarsest; contiguous.
    """

    descriptors: Tensor
    levels: tuple[Tensor, ...]

    @property
    def finite(self) -> Tensor:
        """Whether all are numbers, bool []."""
        return torch.stack([one.sum() for one in (self.descriptors, *self.levels)]).isfinite().all()


class Backbone:
    """A pretrained network, ready to turn images into features.

    Parameters
    ----------
    name : str
        Recorded in an index; a query must use the same.
    network : nn.Module
        Maps normalised images [B, 3, H, W] to a descriptor [B, D] and a list of feature maps
        [B, C, h, w], finest first.
    mean, std : three floats each
        What the network expects of images scaled to 0…1: (x - mean) / std.
    weights_sha256 : str
        Checksum of the weights' file, recorded in an index too.
    device : torch.device
    cell : int
        Input pixels a side of a patch of the coarsest level, and a multiple of those of the
        others. A margin is so wide.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        weights_sha256: str,
        device: torch.device,
        cell: int = 16,
    ) -> None:
        self.name = name
        self.cell = cell
        self.weights_sha256 = weights_sha256
        self.device = device
        # Channels last is the layout of the images, of the features, and of the fastest kernels.
        self._network = (
            network.eval()
            .requires_grad_(False)
            .to(
                device,
                memory_format=torch.channels_last,  # type: ignore[call-overload]
            )
        )
        scale = 255 * torch.tensor(std, device=device)
        self._scale, self._shift = 1 / scale, -255 * torch.tensor(mean, device=device) / scale
        self._at_once = 1 << 20

    def __repr__(self) -> str:
        return f"<Backbone {self.name} on {self.device}>"

    def __call__(self, images: npt.NDArray[np.uint8]) -> Features:
        """Return the features of uint8 images [B, H, W, 3].

        Where memory does not suffice for so many at once, half as many go through the network
        at a time, from then on.

        Raises
        ------
        SpadeError
            If a feature is not finite.
        """
        while True:
            step = min(self._at_once, len(images))
            try:
                parts = [
                    self._features(images[at : at + step]) for at in range(0, len(images), step)
                ]
            except (RuntimeError, MemoryError) as error:
                if step == 1 or not is_shortage(error):
                    raise
                self._at_once = step // 2
                continue
            if len(parts) == 1:
                return parts[0]
            return Features(
                torch.cat([part.descriptors for part in parts]),
                tuple(map(torch.cat, zip(*(part.levels for part in parts), strict=True))),
            )

    def _features(self, images: npt.NDArray[np.uint8]) -> Features:
        pixels = torch.from_numpy(np.require(images, requirements="W")).to(self.device)
        features = self.see(pixels)
        if not features.finite:
            raise SpadeError(
                f"{self.name} gave features that are not finite; its weights may be damaged"
            )
        return features

    @torch.inference_mode()
    def see(self, pixels: Tensor) -> Features:
        """Return the features of images, a uint8 tensor [B, H, W, 3] on the network's device.

        A GPU is not waited for, and nothing is checked.
        """
        normalised = torch.addcmul(self._shift, pixels.float(), self._scale).permute(0, 3, 1, 2)
        descriptors, levels = self._network(normalised)
        return Features(
            descriptors.float().contiguous(),
            tuple(level.permute(0, 2, 3, 1).float().contiguous() for level in levels),
        )


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> Backbone:
    """Return a pretrained network by name.

    Parameters
    ----------
    name : str
        One of BACKBONES, or a network of a library that is installed: "timm:NAME", with a name
        that `timm.create_model` knows, or "torchvision:NAME", a classification network.
    weights : path, optional
        A checkpoint, .pth or .safetensors. By default the published one is fetched once (ResNets,
        ConvNeXts, torchvision's), taken from its package (EfficientNet-Lites), from torch's cache
        if it is there (DINOv2), or left to the library (timm's).
    device : str
        "auto" for the first GPU or else the CPU, or a torch device's name; of several the
        first (see `devices_of`).

    Raises
    ------
    SpadeError
        If the name is unknown, its library is not installed, or weights are missing, damaged, or
        another network's.
    """
    check_name(name)
    check_device(device)
    chosen = device_of(device)
    library, _, within = name.partition(":")
    if library in LIBRARIES:
        found = LIBRARIES[library](within, None if weights is None else Path(weights))
        return Backbone(
            name, found.network, found.mean, found.std, found.weights_sha256, chosen, _ANY_CELL
        )
    architecture = ARCHITECTURES[name]
    path = architecture.published() if weights is None else Path(weights)
    network = architecture.make()
    load_into(network, architecture.renamed(read_state_dict(path)), path)
    return Backbone(
        name,
        network,
        architecture.mean,
        architecture.std,
        sha256_of(path),
        chosen,
        architecture.cell,
    )


def check_name(name: str) -> None:
    """Refuse a name that no network can have, as far as that shows without its library.

    Raises
    ------
    SpadeError
        If it is neither in `BACKBONES` nor a library's.
    """
    library, _, within = name.partition(":")
    if name not in ARCHITECTURES and not (library in LIBRARIES and within):
        raise SpadeError(
            f"unknown backbone {name!r}: choose one of {', '.join(ARCHITECTURES)}, or "
            f"{' or '.join(f'{one}:NAME' for one in LIBRARIES)}"
        )


def check_device(device: str) -> None:
    """Refuse a name of devices that torch cannot have; whether they are here is not looked at.

    Raises
    ------
    SpadeError
        If it is none.
    """
    if device == "all":
        return
    for name in (one.strip() for one in device.split(",")):
        if name == "auto":
            continue
        try:
            kind = torch.device(name).type
        except RuntimeError:
            kind = "meta"
        if kind == "meta":  # or one that holds no values
            raise SpadeError(
                f"`device={device!r}` is none that torch has: give auto, cpu, cuda, another of "
                "torch's names, several as cuda:0,cuda:1, or all"
            )


def devices_of(device: str) -> list[str]:
    """Return the devices that are named: "cuda:0,cuda:1", or "all" for every GPU there is.

    Raises
    ------
    SpadeError
        If there are no GPUs to take all of, or one that is named is not to be had.
    """
    if device == "all":
        if not torch.cuda.device_count():
            raise SpadeError("`device='all'`: there are no GPUs here; choose auto or cpu")
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    names = [name.strip() for name in device.split(",")]
    if len(names) > 1:
        names = [str(_device(name)) for name in names]
    return names


def device_of(device: str) -> torch.device:
    """Return the device that a network is put on: the first that is named; see `devices_of`."""
    return _device(devices_of(device)[0])


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(1, device=name).device  # with its number
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise SpadeError(f"device {name!r} cannot be used: {reason}") from None
