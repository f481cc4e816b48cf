"""Networks of timm and of torchvision as pyramids, where these libraries are installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from math import log2
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from .._support.memory import is_shortage
from ..errors import SpadeError
from .cells import whole_cells
from .vit import inner_blocks
from .weights import fetch_from, first_line, load_into, read_state_dict, sha256_of, sha256_of_state

_FINEST, _COARSEST = 4, 16
"""Input pixels a side of a patch, of the levels that are taken: as in SPADE, section 3.3."""


@dataclass(frozen=True)
class LibraryNetwork:
    """A pretrained network of a library.

    Attributes
    ----------
    network : nn.Module
        As `Backbone` takes it.
    mean, std : three floats each
        What it expects of images.
    weights_sha256 : str
        Of the weights' file; of the weights themselves where the library has no file for them.
    """

    network: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str


class Pyramid(nn.Module):
    """A library's network: what it takes is checked, and its last map is averaged.

    Parameters
    ----------
    name : str
        For errors.
    maps : nn.Module
        Maps images [B, 3, H, W] to feature maps [B, C, h, w].
    levels : sequence of int
        Which of these are levels, the finest first; the last map gives the descriptor.
    cell : int
        Input pixels a side of a place of the coarsest map.
    """

    def __init__(self, name: str, maps: nn.Module, levels: Sequence[int], cell: int) -> None:
        super().__init__()
        self._name = name
        self.maps = maps
        self._levels = tuple(levels)
        self._cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the descriptor [B, D] and the levels [B, C, h, w].

        Raises
        ------
        SpadeError
            If the network does not take images of this size.
        """
        x = whole_cells(x, self._cell)
        try:
            maps: list[Tensor] = self.maps(x)
        except (AssertionError, RuntimeError, ValueError) as error:
            if is_shortage(error):
                raise
            raise SpadeError(
                f"{self._name} does not take an input of {x.shape[2]} x {x.shape[3]} pixels "
                f"({first_line(error)}): choose another `resize` or `crop`"
            ) from error
        return maps[-1].mean((2, 3)), [maps[number] for number in self._levels]


def load_timm(name: str, weights: Path | None) -> LibraryNetwork:
    """Return a network of timm.

    Its levels are the maps whose patches have sides of 4 to 16 pixels; of a network whose maps are
    all of one size, as a vision transformer's are, three that divide its depth evenly.

    Parameters
    ----------
    name : str
        As `timm.create_model` takes it.
    weights : path or None
        A checkpoint by timm's names; None for the one that timm fetches.

    Raises
    ------
    SpadeError
        If timm is not installed or does not know the network, it gives no feature maps, or its
        weights cannot be had or are another network's.
    """
    full_name = f"timm:{name}"
    timm = _imported("timm")
    network = _asked(
        full_name,
        partial(timm.create_model, name, pretrained=weights is None),
        "see timm.list_models(), or give a checkpoint with `weights`"
        if weights is None
        else "see timm.list_models()",
    )
    published: Mapping[str, Any] = network.pretrained_cfg
    if weights is None:
        sha256 = sha256_of_state(network.state_dict())
    else:
        named = published.get("classifier") or ()
        heads = [named] if isinstance(named, str) else named
        classifier = tuple(f"{head}." for head in heads)
        load_into(network, read_state_dict(weights), weights, classifier)
        sha256 = sha256_of(weights)

    try:
        sides = [one["reduction"] for one in _items(network.feature_info)]
    except AttributeError:
        raise SpadeError(f"{full_name} tells of no feature maps: choose another network") from None
    levels = _levels(sides)
    taken = sorted({*levels, len(sides) - 1})
    # Else a transformer takes images of one size only.
    more = {"dynamic_img_size": True} if hasattr(network, "dynamic_img_size") else {}
    maps = _asked(
        full_name,
        partial(timm.create_model, name, features_only=True, out_indices=taken, **more),
        "choose another network",
    )
    _copy_weights(network, maps, full_name)
    return LibraryNetwork(
        Pyramid(full_name, _Channels(maps), [taken.index(at) for at in levels], max(sides)),
        tuple(published["mean"]),
        tuple(published["std"]),
        sha256,
    )


class _Channels(nn.Module):
    """Maps of timm [B, C, h, w], whichever way it has them."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps
        self._last = getattr(maps, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = self.maps(x)
        return [one.permute(0, 3, 1, 2) for one in found] if self._last else found


def _items(info: Any) -> list[Mapping[str, Any]]:
    """Return what timm tells of feature maps, a list or its own sequence of no iterator."""
    return [info[at] for at in range(len(info))]


def _levels(sides: Sequence[int]) -> list[int]:
    """Return which of maps are levels, by their patches' sides in input pixels."""
    if len(set(sides)) == 1:
        return sorted({max(0, at) for at in inner_blocks(len(sides))})
    last = {side: at for at, side in enumerate(sides)}
    inner = [at for side, at in last.items() if _FINEST <= side <= _COARSEST]
    return sorted(inner or last.values())


def _copy_weights(network: nn.Module, maps: nn.Module, name: str) -> None:
    """Copy a network's weights into the part of it that timm makes for feature maps.

    There dots in names are underscores, or all names are within "model" or "body".
    """
    own = {key.replace(".", "_"): value for key, value in network.state_dict().items()}
    state = {}
    for key, value in maps.state_dict().items():
        found = own.get(key.replace(".", "_"))
        if found is None:
            found = own.get(key.partition(".")[2].replace(".", "_"))
        if found is None or found.shape != value.shape:
            raise SpadeError(
                f"{name}: timm's feature maps need {key}, which the network itself has not: "
                "choose another network"
            )
        state[key] = found
    maps.load_state_dict(state)


_HEADS = ("fc", "head", "heads", "classifier")
"""What torchvision calls the classifier."""


def load_torchvision(name: str, weights: Path | None) -> LibraryNetwork:
    """Return a classification network of torchvision.

    Its levels are the last outputs of 1/4, 1/8 and 1/16 of the input's sides.

    Parameters
    ----------
    name : str
        As `torchvision.models.get_model` takes it.
    weights : path or None
        A checkpoint; None for torchvision's default one.

    Raises
    ------
    SpadeError
        If torchvision is not installed or does not know the network, it gives no pyramid, or its
        weights cannot be had or are another network's.
    """
    full_name = f"torchvision:{name}"
    models = _imported("torchvision.models")
    if name not in models.list_models(models):
        raise SpadeError(
            f"unknown backbone {full_name!r}: choose a classification network, as "
            "torchvision.models.list_models(torchvision.models) names them"
        )
    with warnings.catch_warnings(action="ignore"):  # two networks warn of how they are initialised
        network = models.get_model(name, weights=None)
    if hasattr(network, "transform_input"):
        network.transform_input = True  # two networks bring the input to their own scale
    published = models.get_model_weights(name).DEFAULT
    path = fetch_from(published.url, full_name) if weights is None else weights
    load_into(network, read_state_dict(path), path, tuple(f"{head}." for head in _HEADS))
    preset = published.transforms()
    maps = _asked(full_name, partial(StageMaps, network.eval()), "choose another network")
    levels = [at for at, side in enumerate(maps.sides) if _FINEST <= side <= _COARSEST]
    if len(levels) < 2:
        raise SpadeError(
            f"{full_name} has no stages that give maps from fine to coarse: choose another network "
            "(timm gives inner blocks of transformers)"
        )
    return LibraryNetwork(
        Pyramid(full_name, maps, levels, max(maps.sides)),
        tuple(preset.mean),
        tuple(preset.std),
        sha256_of(path),
    )


_ONE_FORWARD = Lock()
"""Threads may share a network, and so what its stages gave last."""


class StageMaps(nn.Module):
    """The outputs of a network's stages: of each size the last one.

    A stage is a part of the network before the classifier, or where that is a sequence of parts,
    one of these. Which give maps, and of what sizes, a blank image tells.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; takes images of 224 x 224 pixels.

    Attributes
    ----------
    sides : list of int
        Input pixels a side of a patch of each map, ascending: powers of two.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._outputs: dict[str, Tensor] = {}
        handles = {
            name: stage.register_forward_hook(self._keep(name)) for name, stage in _stages(network)
        }
        size = 224
        with torch.inference_mode():
            network(torch.zeros(1, 3, size, size))
        last: dict[int, str] = {}
        for name, output in self._outputs.items():
            if side := _side(output):
                last[2 ** round(log2(size / side))] = name
        self.sides = sorted(last)
        self._names = [last[side] for side in self.sides]
        self._channels_last = {
            name
            for name in self._names
            if self._outputs[name].shape[2] != self._outputs[name].shape[3]
        }
        for name, handle in handles.items():
            if name not in self._names:
                handle.remove()
        self._outputs.clear()

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._outputs.pop(name, None)  # the order is that of the last calls
            if isinstance(output, Tensor):
                self._outputs[name] = output

        return hook

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps [B, C, h, w], the finest first."""
        with _ONE_FORWARD:
            self.network(x)
            maps = [self._outputs.pop(name) for name in self._names]
        return [
            one.permute(0, 3, 1, 2) if name in self._channels_last else one
            for name, one in zip(self._names, maps, strict=True)
        ]


def _stages(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in network.named_children():
        if name in _HEADS:
            continue
        if isinstance(child, nn.Sequential | nn.ModuleList):
            found += [(f"{name}.{inner}", part) for inner, part in child.named_children()]
        else:
            found.append((name, child))
    return found


def _side(output: Tensor) -> int:
    """Return the side of a square map [B, C, h, w] or [B, h, w, C]; 0 of what is none."""
    if output.ndim != 4 or output.shape[2] < 2:
        return 0
    return output.shape[2] if output.shape[2] in (output.shape[1], output.shape[3]) else 0


LIBRARIES: dict[str, Callable[[str, Path | None], LibraryNetwork]] = {
    "timm": load_timm,
    "torchvision": load_torchvision,
}
"""What loads a network by its name within a library, by the library's name."""


def _imported(module: str) -> Any:
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or library).partition(".")[0]
        raise SpadeError(f"{missing} is not installed: pip install {missing}") from None
    except Exception as error:  # compiled for another torch, it raises anything at all
        raise SpadeError(
            f"{library} cannot be imported ({first_line(error)}): install the one that fits "
            f"torch {torch.__version__}"
        ) from error


def _asked(name: str, ask: Callable[[], Any], cure: str) -> Any:
    """Return what a library makes of a network's name."""
    try:
        return ask()
    except Exception as error:  # of the name, of the hub, of the connection
        if is_shortage(error):
            raise
        raise SpadeError(f"{name} cannot be had ({first_line(error)}): {cure}") from error
