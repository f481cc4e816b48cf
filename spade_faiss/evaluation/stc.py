"""Evaluate on ShanghaiTech Campus, beside the paper's Table 4."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.files import replace_file
from ..datasets import Clip, Scene, load_stc
from ..datasets.category import GOOD
from ..detector import Detector
from ..errors import SpadeError
from ..images import (
    Found,
    Frame,
    Framing,
    OnError,
    OnNote,
    Source,
    read_image,
    report_problem,
)
from ..images.video import open_sources, with_motion
from ..images.video.open import nominal_step, opened
from ..images.video.read import check_fps
from ..metrics import image_rocauc
from .config import config_of
from .localisation import PRO_LIMIT, check_limit
from .loop import ScoringOptions
from .points import point_of
from .run import Evaluation, run_evaluation
from .scorer import Scorer
from .splits import Split
from .sweep import Sweep
from .truth import GroundTruth

_UNJUDGED = (
    "no threshold is judged: a video's frames resemble their neighbours, so a threshold drawn from "
    "each against the others is too low for new footage, and intervals for independent images are "
    "too narrow"
)
_ANOMALOUS = "anomalous"
"""What a frame that is not good is: the data set names no kinds."""


def evaluate_stc(
    detector: Detector,
    root: str | os.PathLike[str],
    out: Path,
    *,
    names: Collection[str] | None = None,
    fps: float = 1.0,
    normalise_clips: bool = False,
    max_fpr: float = PRO_LIMIT,
    sweep: Sequence[str] = (),
    report: bool = False,
    on_error: OnError,
    on_note: OnNote,
) -> dict[str, Any]:
    """Score each scene of ShanghaiTech Campus, and leave results in a folder.

    One index a scene, of its training videos' frames; every test frame is scored, by its
    descriptor and by its map's maximum and power mean. ROCAUC is over all frames of a scene, as
    they are, and averaged over scenes.

    Parameters
    ----------
    detector : Detector
    root : path
    out : Path
        Gets `frames/<scene>.csv`, too, with every frame's label and scores.
    names : collection of str, optional
        The scenes; by default all.
    fps : float
        Training frames to take a second. They are streamed from the videos into the index.
    normalise_clips : bool
        Whether to give, besides, the ROCAUC of scores that are brought to 0…1 within each clip.
        That uses what a detector could not know before a clip's end.
    max_fpr, sweep, report, on_error, on_note
        As `spade_faiss.evaluation.evaluate_folder` takes them; it returns the same, too.

    Raises
    ------
    SpadeError
        If there is no scene, an option is wrong, or nothing could be evaluated.
    """
    check_fps(fps)
    check_limit(max_fpr)
    axes = Sweep.of(detector, sweep)
    scenes = load_stc(root, names, on_error, on_note)
    options = {"fps": fps, "normalise_clips": normalise_clips, "max_fpr": max_fpr}
    evaluation = Evaluation(
        "stc",
        [
            SceneSplit(
                scene, out, fps, motion=detector.settings.motion, normalise_clips=normalise_clips
            )
            for scene in scenes
        ],
        ScoringOptions(axes.points(point_of(detector)), max_fpr=max_fpr),
        axes,
        config_of(detector, **options, sweep=axes.written()),
        [_UNJUDGED, *_unmasked_notes(scenes)],
    )
    return run_evaluation(
        evaluation, detector, out, report=report, on_error=on_error, on_note=on_note
    )


def _unmasked_notes(scenes: Iterable[Scene]) -> list[str]:
    return [
        f"scene {scene.name}: some clips have no pixel masks, so pixel metrics are missing"
        for scene in scenes
        if not scene.masked and any(clip.pixel_mask for clip in scene.clips)
    ]


class SceneTruth:
    """The ground truth of a scene's frames.

    Parameters
    ----------
    scene : Scene
    framing : Framing
        Frames the pixel masks like the frames.
    """

    def __init__(self, scene: Scene, framing: Framing) -> None:
        self._framing = framing
        self._places = [(clip, i) for clip in scene.clips for i in range(len(clip.frames))]
        self._pixels = {clip.name: clip.pixels() for clip in scene.clips if scene.masked}

    def of(self, position: int, size: tuple[int, int]) -> GroundTruth:
        """Return what is known of a frame: where, too, if all clips have pixel masks."""
        clip, i = self._places[position]
        kind = _ANOMALOUS if clip.labels[i] else GOOD
        place = clip.name, i
        pixels = self._pixels.get(clip.name)
        if pixels is None:
            return GroundTruth(kind, place=place)
        mask = np.asarray(pixels[i]) != 0
        if mask.shape != size:
            height, width = mask.shape
            return GroundTruth(
                kind,
                problem=f"{clip.pixel_mask}: the mask is {width}x{height} pixels and the frame "
                f"{size[1]}x{size[0]}",
                place=place,
            )
        framed, looked_at = self._framing.apply_mask(mask), self._framing.looked_at
        return GroundTruth(kind, framed, looked_at=looked_at, place=place)


class SceneSplit(Split):
    """A scene of ShanghaiTech Campus; no threshold is judged.

    Parameters
    ----------
    scene : Scene
    out : Path
        Gets `frames/<scene>.csv`.
    fps : float
        Training frames to take a second.
    motion : bool
        Whether frames come with those before them. Those of clips, which have no times, are taken
        to follow each other as fast as those of the first training video.
    normalise_clips : bool
        Whether to give the ROCAUC of scores that are brought to 0…1 within each clip, too.
    """

    judged = False

    def __init__(
        self, scene: Scene, out: Path, fps: float, *, motion: bool, normalise_clips: bool
    ) -> None:
        self._scene = scene
        self._fps = fps
        self._motion = motion
        self._normalise_clips = normalise_clips
        self._clips = [clip.name for clip in scene.clips for _ in clip.frames]
        self._table = out / "frames" / f"{scene.name}.csv"
        self.name, self.title = scene.name, f"scene {scene.name}"
        self.test = scene.frames
        self.files = scene.files
        self.outputs = (self._table,)

    def train(self, on_error: OnError | None) -> Iterable[Source]:
        """Stream frames from the scene's videos; what cannot be opened is reported."""
        videos = (Found(path, Path(path.name), None) for path in self._scene.videos)
        complain = partial(report_problem, on_error)
        return open_sources(videos, self._fps, complain, motion=self._motion)

    def queries(self, on_error: OnError | None) -> Iterable[Source]:
        """Return the test frames; with motion, each with the one before it in its clip."""
        return self._moving(on_error) if self._motion else self.test

    def _moving(self, on_error: OnError | None) -> Iterator[Frame]:
        with opened(str(self._scene.videos[0])) as (_, stream, _):
            step = nominal_step(stream)
        first = 0
        for clip in self._scene.clips:
            yield from with_motion(_frames(clip, first, step, on_error))
            first += len(clip.frames)

    def truth(self, framing: Framing) -> SceneTruth:
        """Return the ground truth of the frames; see `Split`."""
        return SceneTruth(self._scene, framing)

    def extra_metrics(self, scorer: Scorer) -> dict[str, float]:
        """Return the ROCAUC of scores that are normalised within each clip, if asked for."""
        if not self._normalise_clips:
            return {}
        clips = [self._clips[position] for position in scorer.positions]
        return {
            f"{name}_normalised_clips": image_rocauc(normalised(scores, clips), scorer.labels)
            for name, scores in (
                ("image_rocauc", scorer.descriptor_scores),
                ("image_rocauc_map_max", scorer.peaks),
                ("image_rocauc_map_mean", scorer.means),
            )
        }

    def save(self, scorer: Scorer) -> None:
        """Write one row a test frame, all digits that a float32 has."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "clip", "label", "descriptor", "map_max", "map_mean"])
        for position, label, *scores in zip(
            scorer.positions,
            scorer.labels,
            scorer.descriptor_scores,
            scorer.peaks,
            scorer.means,
            strict=True,
        ):
            path, clip = self.test[position], self._clips[position]
            writer.writerow([path, clip, int(label), *(f"{score:.9g}" for score in scores)])
        self._table.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._table, text.getvalue().encode("utf-8", "surrogateescape"))


def _frames(clip: Clip, first: int, step: float, on_error: OnError | None) -> Iterator[Frame]:
    """Yield a clip's frames, `step` seconds apart; one that cannot be decoded is reported."""
    for number, path in enumerate(clip.frames):
        try:
            yield Frame(str(path), read_image(path), number * step, first + number)
        except SpadeError as error:
            report_problem(on_error, str(path), str(error))


def normalised(scores: npt.ArrayLike, clips: Iterable[str]) -> npt.NDArray[np.float64]:
    """Return scores [n] brought to 0…1 within each clip; 0 where a clip's are all the same."""
    values = np.array(scores, np.float64)
    names = np.array(list(clips))
    for name in np.unique(names):
        own = values[names == name]
        spread = own.max() - own.min()
        values[names == name] = (own - own.min()) / (spread or 1)
    return values
