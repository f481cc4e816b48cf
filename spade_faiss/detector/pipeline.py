"""The stages' common ground: settings, a network, an index, and where work runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm

from .._support.stages import Stages
from ..errors import SpadeError
from ..features import Backbone, device_of, devices_of, load_backbone
from ..images import Framing, Loaded, OnError, Source
from ..index import Index
from ..index.manifest import BackboneRecord
from ..search import LevelSearch, ShardedLevel, gallery_search, level_search
from ..types import Floats
from .settings import Scoring, Settings

Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Parts:
    """The features of what the network saw at once: whole images, or tiles of them.

    Attributes
    ----------
    units : tuple of (int, int), b long
        The image's place in its batch, and the number of its part.
    descriptors : float32 [b, D]
    levels : tuple of float32 tensors [b, patches, C]
        The patches that are stored; see `spade_faiss.index.layout`.
    shapes : tuple of (int, int)
        Per level, height and width of a part in patches.
    """

    units: tuple[tuple[int, int], ...]
    descriptors: Floats
    levels: tuple[torch.Tensor, ...]
    shapes: tuple[tuple[int, int], ...]

    def scaled(self, scales: Sequence[Floats]) -> Parts:
        """Return the features times a factor a channel: of descriptors, then of each level."""
        return replace(
            self,
            descriptors=self.descriptors * scales[0],
            levels=tuple(
                level * torch.from_numpy(own).to(level.device)
                for level, own in zip(self.levels, scales[1:], strict=True)
            ),
        )


@dataclass(frozen=True)
class Batch:
    """Some images, and their features as they come.

    Attributes
    ----------
    loaded : list of Loaded
    framing : Framing
    parts : iterable of Parts
        Of all images in order, so many at a time that memory suffices; gone through once.
    """

    loaded: list[Loaded]
    framing: Framing
    parts: Iterable[Parts]


@dataclass(frozen=True)
class Done(Generic[Made]):
    """What became of a batch of images.

    Attributes
    ----------
    made : iterable
        What was made of the batch.
    end : int
        The place after its last image.
    """

    made: Iterable[Made]
    end: int


class Executor(Protocol):
    """Where work runs: in this process, or on a cluster.

    Attributes
    ----------
    at_once : int
        Training images that one call of `map` is to do.
    """

    at_once: int

    def title(self, text: str) -> str:
        """Return what a progress bar is called."""

    def map_batches(
        self,
        pipeline: Pipeline,
        sources: Iterable[Source],
        framing: Framing,
        of: Callable[[Pipeline, Batch], Iterable[Made]],
        on_error: OnError | None,
    ) -> Iterator[Done[Made]]:
        """Call a function with each batch of images, and yield the outcomes in order."""

    def map(
        self, pipeline: Pipeline, calls: Iterable[tuple[Callable[[Pipeline], Made], str]]
    ) -> Iterator[Made]:
        """Yield in order what functions return; a text beside each says what it is about."""

    def branches(
        self, sources: Iterable[Source], members: int, on_error: OnError | None
    ) -> list[tuple[Iterable[Source], OnError | None]]:
        """Return the same images for each of several detectors that are queried in step.

        An image that cannot be used is reported once.
        """

    def of_members(self, members: int) -> Executor:
        """Return the executor of each of several detectors that are queried in step."""


class LazyNetwork:
    """A network that is loaded when it is first needed; copies of a detector share it."""

    def __init__(
        self, backbone: str | Backbone, weights: str | os.PathLike[str] | None, device: str
    ) -> None:
        self._named = backbone, weights, device
        self._loaded = backbone if isinstance(backbone, Backbone) else None

    @classmethod
    def of(cls, settings: Settings) -> LazyNetwork:
        """Return the network that settings name."""
        return cls(settings.backbone, settings.weights, settings.device)

    def take(self, network: Backbone) -> None:
        """Use a network that is loaded already, and is the same."""
        self._loaded = network

    def __call__(self) -> Backbone:
        """Return the network."""
        if self._loaded is None:
            name, weights, device = self._named
            assert isinstance(name, str)
            self._loaded = load_backbone(name, weights, device)
        return self._loaded


@dataclass(eq=False)
class Pipeline:
    """Features, search and maps by some settings, of an index if there is one.

    Attributes
    ----------
    settings : Settings
    lazy_network : LazyNetwork
    executor : Executor
    stages : Stages
    opened : Index or None
    draft : bool
        Whether the index is complete but does not count yet.
    """

    settings: Settings
    lazy_network: LazyNetwork
    executor: Executor
    stages: Stages
    opened: Index | None = None
    draft: bool = False
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _searches: dict[tuple[bool, str], tuple[LevelSearch | ShardedLevel, ...]] = field(
        default_factory=dict, repr=False
    )

    @property
    def index(self) -> Index:
        """The index."""
        if self.opened is None:
            raise SpadeError("there is no index yet: fit one on good images, or load one")
        return self.opened

    def on(self, index: Index | None, *, draft: bool = False) -> Pipeline:
        """Return a pipeline for another index, or for none."""
        return replace(self, opened=index, draft=draft, kept={}, _searches={})

    def by(self, **settings: Any) -> Pipeline:
        """Return a pipeline of the same index with other settings, and their network.

        Raises
        ------
        SpadeError
            If a setting means nothing, or the index was opened with other `search_params`.
        """
        other = replace(self, settings=replace(self.settings, **settings))
        same = other.settings.search_params == self.settings.search_params
        if self.opened and self.opened.galleries and not same:
            raise SpadeError(f"{self.opened.folder} is open: load it with these `search_params`")
        if settings.keys() & {"backbone", "weights", "device"}:
            other.lazy_network = LazyNetwork.of(other.settings)
        return other

    @property
    def network(self) -> Backbone:
        """The network.

        Raises
        ------
        SpadeError
            If it is not the one that made the index.
        """
        network = self.lazy_network()
        if self.opened is None or record_of(network) == self.opened.manifest.backbone:
            return network
        made = self.opened.manifest.backbone
        raise SpadeError(
            f"{self.opened.folder} was made by {made.name} with weights of sha256 "
            f"{made.weights_sha256[:12]}…, not by {network.name} with "
            f"{network.weights_sha256[:12]}…: name the same file with `weights`, "
            "or build the index again"
        )

    @property
    def device(self) -> torch.device:
        """Where features are made and searched: the network's own, which need not be loaded."""
        named = self.settings.backbone
        return device_of(self.settings.device) if isinstance(named, str) else named.device

    @property
    def framing(self) -> Framing:
        """How the index's images were framed."""
        return self.index.manifest.framing.framing()

    @property
    def scoring(self) -> Scoring:
        """What scores depend on."""
        return Scoring.of(self.settings, self.index.manifest)

    def level_searches(self, *, exact: bool) -> tuple[LevelSearch | ShardedLevel, ...]:
        """Return the search of each level, of its gallery unless `exact`; kept for next time."""
        index, key = self.index, (exact, self.settings.device)
        if key not in self._searches:
            self._searches.clear()
            devices = devices_of(self.settings.device)
            self._searches[key] = (
                tuple(map(gallery_search, index.galleries))
                if index.galleries and not exact
                else tuple(
                    level_search(rows, layout.patches, devices)
                    for rows, layout in zip(index.levels, index.layouts, strict=True)
                )
            )
        return self._searches[key]

    def bar(self, over: Iterable[Any] | None, title: str, total: int | None = None) -> tqdm[Any]:
        """Return a progress bar on standard error, which shows if that is wished for."""
        hidden = None if self.settings.progress else True
        return tqdm(over, self.executor.title(title), total, disable=hidden, unit="image")


def record_of(network: Backbone) -> BackboneRecord:
    """Return what an index keeps of a network, to know it again."""
    return BackboneRecord(name=network.name, weights_sha256=network.weights_sha256)
