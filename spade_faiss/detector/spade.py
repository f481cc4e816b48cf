"""SPADE as one estimator: fit on good images, predict where a new one is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from .._support.files import folder_or_temporary
from ..features import DEFAULT_BACKBONE, Backbone
from ..images import Images, OnError
from ..images.roi import Roi, roi_of
from ..index import Index
from ..types import Mask
from . import fit as fitting
from .executor import pipeline_of
from .parameters import check_backbone, params_of, settings_of
from .pipeline import Pipeline
from .searcher import Searcher
from .settings import CALIBRATED, CROP, KAPPA, K, SearchSettings, Settings


class Spade(Searcher):
    """Sub-image anomaly detection with deep pyramid correspondences (Cohen & Hoshen, 2020).

    Parameters
    ----------
    backbone : str or Backbone
        One of `spade_faiss.features.BACKBONES`, a library's network as "timm:NAME" or
        "torchvision:NAME", or a network of your own.
    k : int
        Training images that an image is compared with (the paper's K).
    kappa : int
        Good patches that a patch is compared with (the paper's kappa).
    weights : path, optional
        A checkpoint for the named backbone, instead of the published one.
    resize : int, optional
        Length of the shorter side after resizing, in pixels. By default 256; with `tile`, images
        are cut as they are.
    crop : int or None
        Side of the centre crop that the network sees; None for the whole frame. With `tile`, the
        whole picture is seen, unless this is another than the default, which is refused.
    tile : int, optional
        Side in pixels of the overlapping squares that the network sees one by one, so that small
        flaws are seen in large pictures. Maps are joined, and an image is judged as a whole.
    overlap : int, optional
        Pixels that neighbouring tiles share, at least. By default an eighth of `tile`,
        and one of the network's coarsest patches at least.
    region : path, bool [H, W], or Roi, optional
        What is looked at, of a camera that stands still: white, or True. It may be of any size,
        and has the images' aspect. The rest is painted over before the network sees it, so that
        nothing there counts.
    sigma : float, optional
        Smoothing of the maps in pixels of the network's input. By default as the preset says.
    quantile : float in (0, 1), optional
        Share of good images that the thresholds are to let pass. By default what so many images
        can show: all but one in n + 1 (see `spade_faiss.verdict.threshold.aimed_quantile`).
    calibrated : int
        How many training images, at most, are scored against the others to find the thresholds;
        of more, so many are drawn by their names (see `spade_faiss.verdict.threshold`).
    score : {"map", "descriptor", "mean"}, optional
        An image's score: its map's largest value; or the paper's mean squared distance to the
        K nearest descriptors (section 3.2), which notices global change rather than small flaws;
        or the map's power mean (`spade_faiss.maps.score`), to which a large weak flaw counts, too.
        By default as the preset says. The index keeps it.
    min_area : int, optional
        Pixels of an image that an area must have to count. Maps are clipped at the largest value
        that all pixels of some connected area of so many reach (`spade_faiss.maps.area_peak`), and
        regions that are smaller are left out. The index keeps it.
    preset : one of `spade_faiss.detector.presets.PRESETS`
        "paper"; or, which are not the paper's, "best", which is more accurate, or "video", which
        standardises and sees motion.
    standardise : bool, optional
        Whether each channel of the patches is divided by its standard deviation over the good
        images that an index is first made of, and each of the descriptors by the root of that.
        By default as the preset says.
    contrast : bool, optional
        Whether maps say how much farther patches are from their matches than is normal for these
        (see `spade_faiss.maps.contrast`). By default as the preset says.
    motion : bool, optional
        Whether how fast places move is one more level of the pyramid (see
        `spade_faiss.images.motion`). It takes frames that come with the one before them:
        `spade_faiss.video.read_frames(path, motion=True)`. By default as the preset says.
    margin : bool, optional
        Whether the network sees a margin around what counts, one of its coarsest patches wide, so
        that no patch lies at a border. By default as the preset says.
    averaged : bool, optional
        Whether each level is followed by one of averaged patches
        (see `spade_faiss.features.surroundings`). By default as the preset says.
    store : {"float32", "float16"}
        What patches are stored as; float16 takes half the space. A query is compared exactly
        with what is stored.
    mirror : bool
        Whether the network sees each image's mirror image, as a view for an ensemble.
    engine : one of `spade_faiss.search.ENGINES`
        For what is searched exactly.
    factory : str, optional
        An approximate index over all training patches of each level, as `faiss.index_factory`
        names it ("IVF256,Flat", "HNSW32", …), to be searched instead of the exact search among
        the K nearest images.
    coreset : float in (0, 1), optional
        Share of each level's patches, chosen as in PatchCore, to be searched whole instead;
        exactly, or with `factory` too, through such an index over them.
    search_params : str, optional
        How thoroughly that index is searched: "nprobe=16"; see `spade_faiss.search.GallerySpec`.
    exact : bool
        Whether to search exactly among the K nearest images, even so.
    device : str
        "auto", or a torch device's name. Of several, "cuda:0,cuda:1" or "all", the first has
        the network, and each a part of the training images' patches.
    batch_size : int
        Images that go through the network at once.
    progress : bool
        Whether to show progress bars on standard error (only when that is a terminal).

    Attributes
    ----------
    index_ : Index
        The fitted index.
    image_threshold, pixel_threshold, review : float or None
        Drawn from the index's own images by `fit`, or from others by `calibrate`; or set by hand:
        see `spade_faiss.detector.judging`.
    settings : Settings
        The parameters, checked and frozen; `with_options` gives a detector with others.
    stages : Stages
        Seconds spent so far on features, index, calibration, stage_one, stage_two and maps; on a
        GPU on begin and wait, which stand for the stages together.

    Examples
    --------
    >>> from spade_faiss import Spade
    >>> from spade_faiss.datasets.demo import render
    >>> good = [render(0, "brick", "train", i).image for i in range(5)]
    >>> spade = Spade("efficientnet_lite0", quantile=0.9).fit(good)
    >>> len(spade.index_)
    5
    >>> result = next(spade.query([render(0, "brick", "hole", 0).image]))
    >>> result.name, result.map.shape, result.verdict
    ('image 0', (256, 256), 'NG')
    """

    def __init__(
        self,
        backbone: str | Backbone = DEFAULT_BACKBONE,
        k: int = K,
        kappa: int = KAPPA,
        *,
        weights: str | os.PathLike[str] | None = None,
        resize: int | None = None,
        crop: int | None = CROP,
        tile: int | None = None,
        overlap: int | None = None,
        region: str | os.PathLike[str] | Mask | Roi | None = None,
        sigma: float | None = None,
        quantile: float | None = None,
        calibrated: int = CALIBRATED,
        score: str | None = None,
        min_area: int | None = None,
        preset: str = "paper",
        standardise: bool | None = None,
        contrast: bool | None = None,
        motion: bool | None = None,
        margin: bool | None = None,
        averaged: bool | None = None,
        store: str = "float32",
        mirror: bool = False,
        engine: str = "auto",
        factory: str | None = None,
        coreset: float | None = None,
        search_params: str | None = None,
        exact: bool = False,
        device: str = "auto",
        batch_size: int = 8,
        progress: bool = False,
    ) -> None:
        given: dict[str, Any] = dict(  # noqa: C408 - as they are named above
            preset=preset,
            backbone=backbone,
            k=k,
            kappa=kappa,
            weights=weights,
            resize=resize,
            crop=crop,
            tile=tile,
            overlap=overlap,
            region=region,
            sigma=sigma,
            quantile=quantile,
            calibrated=calibrated,
            score=score,
            min_area=min_area,
            standardise=standardise,
            contrast=contrast,
            motion=motion,
            margin=margin,
            averaged=averaged,
            store=store,
            mirror=mirror,
            engine=engine,
            factory=factory,
            coreset=coreset,
            search_params=search_params,
            exact=exact,
            device=device,
            batch_size=batch_size,
            progress=progress,
        )
        check_backbone(given)
        super().__init__(given, pipeline_of(settings_of(given)))

    def fit(
        self,
        images: Images,
        index: str | os.PathLike[str] | None = None,
        *,
        calibrate: bool = True,
        on_error: OnError | None = None,
    ) -> Spade:
        """Index good images.

        Parameters
        ----------
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
            An iterator, of `spade_faiss.video.read_frames` for one, is gone through once and
            never held whole.
        index : path, optional
            Folder to keep the index in; it replaces an index that is there. By default a
            temporary one that lasts as long as this object.
        calibrate : bool
            Whether to score each image against the others and so to find the thresholds.
        on_error : callable, optional
            Called with (name, why) for an image that cannot be used, which is then left out.

        Raises
        ------
        SpadeError
            If an image cannot be used (without `on_error`), or none can.
        """
        folder, temporary = folder_or_temporary(index)
        plain = self.pipeline.on(None)
        made = fitting.fit(plain, images, folder, calibrate=calibrate, on_error=on_error)
        self._become(plain.on(made))
        self._temporary = temporary  # only now does the former one go
        return self

    def add(self, images: Images, on_error: OnError | None = None) -> int:
        """Add good images to the index and calibrate anew; return how many were added.

        An image whose path is in the index already is refused. One without a path, as an array, is
        called by the number after those that are there: "image 5" after "image 4". What `calibrate`
        found goes: thresholds are drawn from the index's own images, for the rate that was last
        wished for.
        """
        index, added = fitting.add(self.pipeline, images, on_error)
        if added:
            self._become(self.pipeline.on(index))
        return added

    def remove(self, names: Iterable[str], on_error: OnError | None = None) -> int:
        """Remove training images by path and calibrate anew; return how many were removed.

        A name is a path as `info` lists it, or the end of one that no other shares. What
        `calibrate` found goes, as with `add`.
        """
        index, removed = fitting.remove(self.pipeline, names, on_error)
        if removed:
            self._become(self.pipeline.on(index))
        return removed

    def look_at(self, region: str | os.PathLike[str] | Mask | Roi | None) -> bool:
        """Look at another region of the index's images, and calibrate anew.

        The index keeps its images as they were framed for the network, and features are made of
        these. What `calibrate` found goes, as with `add`.

        Parameters
        ----------
        region : path, bool [H, W], or Roi, or None
            As for a new one. None is everything.

        Returns
        -------
        bool
            Whether it is another than before.

        Raises
        ------
        SpadeError
            If nothing of the images is looked at, or they have another aspect; or if the index
            does not keep what its features were made of: it looks at motion, or was made by an
            older version with a margin.
        """
        roi = roi_of(region)
        index, changed = fitting.look_at(self.pipeline, roi)
        if changed:
            self._become(self.pipeline.by(region=roi).on(index))
        return changed

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the index into a folder of its own; it replaces an index that is there."""
        fitting.copy_index(self.index_, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        verify: bool = True,
        calibrate: bool = True,
        **settings: Unpack[SearchSettings],
    ) -> Spade:
        """Open an index; what is not given is as it was when the index was made.

        Parameters
        ----------
        folder : path
        verify : bool
            Whether to check the files' checksums.
        calibrate : bool
            Whether to call `draw_thresholds` where the index's are of other settings.
        **settings
            As for a new one: k, kappa, backbone, weights, quantile, score, min_area, engine,
            search_params, exact, device, batch_size, progress.

        Raises
        ------
        SpadeError
            If there is no index, or a file of it is missing or damaged, or its galleries have
            no such search parameters.
        TypeError
            If a setting is one that the index itself decides.
        """
        check_backbone(settings)
        index = Index.open(folder, verify=verify)
        chosen = Settings.of_index(index.manifest, **settings)
        if search_params := settings.get("search_params"):
            index.set_search_params(search_params)
        spade = cls.__new__(cls)
        Searcher.__init__(spade, params_of(chosen), pipeline_of(chosen).on(index))
        if settings.get("quantile") is not None:
            spade._use_drawn()
        if calibrate:
            spade.draw_missing_thresholds()
        return spade

    def _become(self, pipeline: Pipeline) -> None:
        """Take the pipeline of another index; what was found of the former one goes."""
        self._pipeline = pipeline
        self._scored_anew = None
        self.draw_missing_thresholds()

    @property
    def members(self) -> tuple[Spade, ...]:
        """Itself."""
        return (self,)
