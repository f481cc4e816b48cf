"""What runs in an actor: a task in, its answer out."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._support.limit import limit_memory
from ..errors import SpadeError

# What imports torch is imported by `prepare`, once the number of threads is set.
if TYPE_CHECKING:
    from ..detector import Settings
    from ..detector.pipeline import Batch, Pipeline
    from ..features import Backbone
    from ..images import Framing, Loaded
    from ..index import Index, Manifest

Made = TypeVar("Made")

_OPEN = 2
"""Pipelines that a worker keeps besides those that an ensemble queries together: of an index
that is being made, one without it and one with."""


@dataclass(frozen=True)
class Setting:
    """What all workers have in common.

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
class PipelineSpec:
    """The pipeline that a task is for.

    Attributes
    ----------
    settings : Settings
    weights_sha256 : str
        Of the network that features must come from.
    index : str or None
        The folder of the index; None where features alone are wanted.
    manifest : Manifest or None
        Which state of it.
    draft : bool
        Whether that state is complete but does not count yet.
    copies : tuple of pairs, or None
        Which of its images show the same part, where somebody looked for them: a manifest without
        any does not say whether. See `spade_faiss.verdict.copies.to_pairs`.
    beside : int
        Pipelines that a worker is to keep along with it.
    """

    settings: Settings
    weights_sha256: str
    index: str | None = None
    manifest: Manifest | None = None
    draft: bool = False
    copies: tuple[tuple[int, int], ...] | None = None
    beside: int = 0

    @property
    def key(self) -> str:
        """What two specs share if the same pipeline serves both."""
        made = self.manifest
        settings = self.settings.as_dict() | {"backbone": str(self.settings.backbone)}
        state = (made.generation, made.normal_distances is None) if made else None
        return repr((settings, self.weights_sha256, self.index, state))


@dataclass(frozen=True)
class Answer(Generic[Made]):
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

    made: list[Made]
    end: int
    seconds: dict[str, float]


class Worker:
    """Holds a network and an index or two, and does one task after another.

    The same task always has the same answer, so it can be asked for again.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._network: tuple[object, Backbone] | None = None
        self._opened: dict[str, Pipeline] = {}
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

    def do(self, key: str, spec: list[Any], call: Callable[[Pipeline], Made]) -> Made:
        """Call a function with a pipeline; its spec, in the object store, is fetched if new."""
        pipeline = self._opened.pop(key, None)
        if pipeline is None:
            import ray

            made: PipelineSpec = ray.get(spec[0])
            self._room = _OPEN + made.beside
            pipeline = self.open(made)
        self._opened[key] = pipeline
        while len(self._opened) > self._room:
            del self._opened[next(iter(self._opened))]
        return call(pipeline)

    def open(self, spec: PipelineSpec) -> Pipeline:
        """Make the pipeline that a driver described.

        Raises
        ------
        SpadeError
            If this node cannot: it lacks the index, say, or has other weights.
        """
        from ..detector.executor import pipeline_of
        from ..verdict.copies import from_pairs

        try:
            settings = replace(spec.settings, backbone=self._load(spec))
            pipeline = pipeline_of(settings)
            if spec.index is not None and spec.manifest is not None:
                folder = Path(spec.index)
                index = _opened(folder, spec.manifest, settings.search_params, draft=spec.draft)
                if spec.copies is not None:
                    index.copies = from_pairs(spec.copies, len(index))
                pipeline = pipeline.on(index, draft=spec.draft)
        except OSError as error:
            raise SpadeError(f"{error.filename}: {error.strerror} on a Ray worker's node") from None
        return pipeline

    def _load(self, spec: PipelineSpec) -> Backbone:
        """Return the network, which several indices may share."""
        from ..features import Backbone, load_backbone

        settings = spec.settings
        backbone = settings.backbone
        if isinstance(backbone, Backbone):
            return backbone
        which = backbone, str(settings.weights), settings.device, spec.weights_sha256
        if self._network is None or self._network[0] != which:
            self._network = None
            network = load_backbone(backbone, settings.weights, settings.device)
            if network.weights_sha256 != spec.weights_sha256:
                raise SpadeError("a Ray worker has other weights; give the same file on every node")
            self._network = which, network
        return self._network[1]


def _opened(folder: Path, manifest: Manifest, search_params: str | None, *, draft: bool) -> Index:
    from ..index import Index, damaged_files

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
        index.set_search_params(search_params)
    return index


def answer(
    pipeline: Pipeline,
    images: list[Any],
    framing: Framing,
    of: Callable[[Pipeline, Batch], Iterable[Made]],
) -> Answer[Made]:
    """Answer for a batch of pickled images, which Ray keeps."""
    import ray

    from .._support.stages import Stages
    from ..detector.extract import batch_of

    pipeline.stages = Stages()
    with pipeline.stages("features"):
        loaded: list[Loaded] = [pickle.loads(one) for one in ray.get(images[0])]
    batch = batch_of(pipeline, loaded, framing)
    return Answer(list(of(pipeline, batch)), loaded[-1].position + 1, pipeline.stages.seconds)
