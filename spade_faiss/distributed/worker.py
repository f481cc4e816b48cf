"""What runs in an actor: a task in, its answer out."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.memory import limit_memory
from ..errors import SpadeError

# What imports torch is imported by `prepare`, once the number of threads is set.
if TYPE_CHECKING:
    from ..detector.spade import Batch, Floats, Ids, Result, Spade
    from ..features import Backbone
    from ..images import Framing, Loaded
    from ..index import Index, Manifest

_OPEN = 2
"""Estimators that a worker keeps besides those that an ensemble queries together: of an index
that is being made, one without it and one with."""


@dataclass(frozen=True)
class Setting:
    """What the workers of a crew have in common.

    Attributes
    ----------
    folder : str
        What relative paths start from.
    threads : int
        The results' last bits depend on it.
    memory : int or None
        Bytes that each may take.
    """

    folder: str
    threads: int
    memory: int | None = None


@dataclass(frozen=True)
class Recipe:
    """The estimator that a task is for.

    Attributes
    ----------
    settings : dict
        Of `Spade`.
    weights_sha256 : str
        Of the network that features must come from.
    index : str or None
        The folder of the index; None where features alone are wanted.
    manifest : Manifest or None
        Which state of it.
    draft : bool
        Whether that state is complete but does not count yet.
    beside : int
        Estimators that a worker is to keep along with it.
    """

    settings: dict[str, Any]
    weights_sha256: str
    index: str | None = None
    manifest: Manifest | None = None
    draft: bool = False
    beside: int = 0

    @property
    def key(self) -> str:
        """What two recipes share if the same estimator serves both."""
        made = self.manifest
        return repr(
            (
                [
                    (name, value)
                    for name, value in sorted(self.settings.items())
                    if name != "backbone"
                ],
                str(self.settings["backbone"]),
                self.weights_sha256,
                self.index,
                (made.generation, made.usual is None) if made else None,
            )
        )


@dataclass(frozen=True)
class Answer:
    """What became of a batch.

    Attributes
    ----------
    made : list
        What was wanted of the batch.
    end : int
        The place after its last image.
    seconds : dict of str to float
        By stage.
    """

    made: list[Any]
    end: int
    seconds: dict[str, float]


class Worker:
    """Holds a network and an index or two, and does one task after another.

    The same task always has the same answer, so it can be asked for again.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._network: tuple[object, Backbone] | None = None
        self._opened: dict[str, Spade] = {}
        self._room = _OPEN

    def prepare(self) -> str | None:
        """Load the libraries; return what is wrong, if anything is."""
        setting = self._setting
        os.environ["OMP_NUM_THREADS"] = str(setting.threads)
        try:
            os.chdir(setting.folder)
        except OSError as error:
            return f"{error.filename}: {error.strerror} on a Ray worker's node"
        import torch

        from ..detector import spade as detector  # noqa: F401

        torch.set_num_threads(setting.threads)
        if setting.memory is not None:
            try:
                limit_memory(setting.memory)
            except SpadeError as error:
                return f"{error}, for each Ray worker"
        return None

    def is_there(self) -> bool:
        """Answer at once."""
        return True

    def do(self, key: str, recipe: list[Any], call: Callable[[Spade], object]) -> object:
        """Call a function with an estimator; its recipe, in the object store, is fetched if new."""
        spade = self._opened.pop(key, None)
        if spade is None:
            import ray

            made: Recipe = ray.get(recipe[0])
            self._room = _OPEN + made.beside
            spade = self._open(made)
        self._opened[key] = spade
        while len(self._opened) > self._room:
            del self._opened[next(iter(self._opened))]
        return call(spade)

    def _open(self, recipe: Recipe) -> Spade:
        from ..detector.spade import Spade

        try:
            spade = Spade(**{**recipe.settings, "backbone": self._load(recipe)})
            if recipe.index is not None and recipe.manifest is not None:
                spade.index_ = _opened(
                    Path(recipe.index), recipe.manifest, recipe.draft, spade.search_params
                )
        except OSError as error:
            raise SpadeError(f"{error.filename}: {error.strerror} on a Ray worker's node") from None
        return spade

    def _load(self, recipe: Recipe) -> Backbone:
        """Return the network, which several indices may share."""
        from ..features import Backbone, load_backbone

        backbone = recipe.settings["backbone"]
        if isinstance(backbone, Backbone):
            return backbone
        source = (backbone, str(recipe.settings["weights"]), recipe.settings["device"])
        which = *source, recipe.weights_sha256
        if self._network is None or self._network[0] != which:
            self._network = None
            network = load_backbone(backbone, recipe.settings["weights"], source[2])
            if network.weights_sha256 != recipe.weights_sha256:
                raise SpadeError("a Ray worker has other weights; give the same file on every node")
            self._network = which, network
        return self._network[1]


def _opened(folder: Path, manifest: Manifest, draft: bool, search_params: str | None) -> Index:
    from ..index import Index, damaged_files
    from ..index.gallery import set_search_params

    if not (folder / manifest.generation).is_dir():
        raise SpadeError(
            f"{folder} is not to be seen from a Ray worker's node; name a folder that all nodes "
            "share"
            if draft
            else f"{folder} was changed while it was queried, or a Ray worker's node lacks it; "
            "query it again"
        )
    if not draft and (damaged := damaged_files(folder, manifest, again=False)):
        raise SpadeError(f"{damaged[0]}, on a Ray worker's node")
    index = Index(folder, manifest)
    made = manifest.gallery
    if made and search_params and search_params != made.search_params:
        for gallery in index.galleries:
            set_search_params(gallery, search_params)
    return index


# Tasks ------------------------------------------------------------------------------------


def answer(
    spade: Spade, images: list[Any], framing: Framing, of: Callable[[Spade, Batch], Iterable[Any]]
) -> Answer:
    """Answer for a batch of pickled images, which Ray keeps."""
    import ray

    from .._support.stages import Stages

    spade.stages = Stages()
    with spade.stages("features"):
        loaded: list[Loaded] = [pickle.loads(one) for one in ray.get(images[0])]
        batch = spade.features_of(loaded, framing)
    return Answer(list(of(spade, batch)), loaded[-1].position + 1, spade.stages.seconds)


def itself(spade: Spade, batch: Batch) -> list[Batch]:
    """Want a batch's features alone."""
    return [batch]


def map_alone(spade: Spade, batch: Batch) -> Iterable[Result]:
    """Want of each image no more than an ensemble takes from a member that is not the first."""
    for result in spade.compare(batch):
        yield replace(
            result,
            image=result.image[:0],
            input=result.input[:0],
            map=result.map[:0],
            distances=(),
            matches=(),
        )


def left_out(spade: Spade, images: Ids, others: Sequence[Ids]) -> list[Floats]:
    """Return the maps of some training images, each left out of the index."""
    return list(spade._maps_left_out(spade.index_, images, others))


def others(spade: Spade, images: Ids | None) -> tuple[list[Ids], Floats]:
    """Return some training images' nearest others."""
    return spade._others(spade.index_, images)


def peaks(spade: Spade, images: Ids, others: Sequence[Ids], exact: bool) -> list[float]:
    """Return the peaks of some training images' maps, each left out of the index."""
    return list(spade._peaks(spade.index_, images, others, exact))


def usual(spade: Spade, level: int, images: Ids, others: Sequence[Ids]) -> list[Floats]:
    """Return what is usual for some training images' patches."""
    return list(spade._usual_at(spade.index_, level, images, others))
