"""Evaluate on ShanghaiTech Campus, beside the paper's Table 4."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.files import replace_file
from ..datasets import Scene, load_stc
from ..detector import Detector, Result
from ..errors import SpadeError
from ..images import Found, Framing, OnError, OnNote
from ..images.video import open_sources
from ..metrics import image_rocauc
from ..types import Mask
from .config import config_of, level_count
from .evidence import Evidence
from .localisation import PRO_LIMIT, check_limit, localised, missing_notes
from .report import write_report
from .resume import Job, run_jobs
from .scores import Point, Scorer, Scores, evaluate_points, point_of
from .sweep import Sweep
from .tables import write_points

_UNJUDGED = (
    "no threshold is judged: a video's frames resemble their neighbours, so a threshold drawn from "
    "each against the others is too low for new footage, and intervals for independent images are "
    "too narrow"
)


def evaluate_stc(
    spade: Detector,
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
    descriptor and by its map's maximum. ROCAUC is over all frames of a scene, as they are, and
    averaged over scenes.

    Parameters
    ----------
    spade : Detector
        Its settings are used; it need not be fitted.
    root : path
    out : Path
        Gets `results.json`, `table.md`, and `frames/<scene>.csv` with every frame's label and
        scores.
    names : collection of str, optional
        The scenes; by default all.
    fps : float
        Training frames to take a second. They are streamed from the videos into the index.
    normalise_clips : bool
        Whether to give, besides, the ROCAUC of scores that are brought to 0…1 within each clip.
        That uses what a detector could not know before a clip's end.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO is integrated, and by which it is divided.
    sweep : sequence of str
        Such as `k=1,50`; several make a grid.
    report : bool
        Whether to write `report.html`, too; of finished scenes, without doing them again.
    on_error, on_note : callable
        Called with (name, why) for what is broken, and with a line that is no error.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    SpadeError
        If there is no scene, an option is wrong, or nothing could be evaluated.
    """
    if not fps > 0:
        raise SpadeError(f"fps = {fps} must be more than 0")
    check_limit(max_fpr)
    axes = Sweep.parse(sweep, level_count(spade.network))
    base = point_of(spade)
    points = axes.points(base)
    config = config_of(
        spade, fps=fps, normalise_clips=normalise_clips, max_fpr=max_fpr, sweep=axes.written()
    )
    scenes = load_stc(root, names, on_error, on_note)
    notes = [
        _UNJUDGED,
        *(
            f"scene {scene.name}: some clips have no pixel masks, so pixel metrics are missing"
            for scene in scenes
            if not scene.masked and any(clip.pixel_mask for clip in scene.clips)
        ),
    ]
    for note in notes:
        on_note(note)

    def job(scene: Scene) -> Job:
        table = out / "frames" / f"{scene.name}.csv"
        return Job(
            scene.name,
            scene.files,
            lambda complain: _evaluate(
                spade, scene, points, fps, normalise_clips, max_fpr, table, out, complain
            ),
            (table,),
        )

    def finish(finished: dict[str, list[Scores]]) -> dict[str, Any]:
        results = write_points(
            out, "stc", config, finished, axes, base, [*notes, *missing_notes(finished)]
        )
        if report:
            write_report(out, results)
        return results

    return run_jobs(
        [job(scene) for scene in scenes], out, config, finish, on_error, on_note, report
    )


class SceneTruth:
    """What is known of a scene's frames.

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

    def of(self, result: Result) -> tuple[bool, Mask | None]:
        """Return whether a frame is anomalous, and where if all clips have pixel masks."""
        clip, i = self._places[result.position]
        pixels = self._pixels.get(clip.name)
        if pixels is None:
            return clip.labels[i], None
        mask = np.asarray(pixels[i]) != 0
        size = result.map.shape[:2]
        if mask.shape != size:
            raise SpadeError(
                f"{clip.pixel_mask}: the mask is {mask.shape[1]}x{mask.shape[0]} "
                f"pixels and the frame {size[1]}x{size[0]}"
            )
        return clip.labels[i], self._framing.apply_mask(mask)


def _evaluate(
    spade: Detector,
    scene: Scene,
    points: Sequence[Point],
    fps: float,
    normalise_clips: bool,
    max_fpr: float,
    table: Path,
    scratch: Path,
    on_error: OnError,
) -> tuple[list[Scores], dict[str, Any]]:
    evidence = Evidence(max_fpr=max_fpr)
    frames = scene.frames
    clips = [clip.name for clip in scene.clips for _ in clip.frames]

    def more(scorer: Scorer, number: int) -> Mapping[str, float]:
        evidence.finish(scorer, number)
        figures, each = localised(scorer)
        own = [clips[position] for position in scorer.positions]
        if number == 0:
            evidence.record["aupimo"] = each
            names = [str(frames[position]) for position in scorer.positions]
            _write_frames(
                table,
                zip(names, own, scorer.labels, scorer.descriptor_scores, scorer.peaks, strict=True),
            )
        if not normalise_clips:
            return figures
        return figures | {
            f"{name}_normalised_clips": image_rocauc(normalised(scores, own), scorer.labels)
            for name, scores in (
                ("image_rocauc", scorer.descriptor_scores),
                ("image_rocauc_map_max", scorer.peaks),
            )
        }

    videos = (Found(path, Path(path.name), None) for path in scene.videos)
    scores = evaluate_points(
        spade,
        open_sources(videos, fps, on_error),
        frames,
        lambda framing: SceneTruth(scene, framing),
        points,
        max_fpr=max_fpr,
        scratch=scratch,
        on_error=on_error,
        more=more,
        on_result=evidence.add,
    )
    return scores, evidence.record


def normalised(scores: npt.ArrayLike, clips: Iterable[str]) -> npt.NDArray[np.float64]:
    """Return scores [n] brought to 0…1 within each clip; 0 where a clip's are all the same."""
    values = np.array(scores, np.float64)
    names = np.array(list(clips))
    for name in np.unique(names):
        own = values[names == name]
        spread = own.max() - own.min()
        values[names == name] = (own - own.min()) / (spread or 1)
    return values


def _write_frames(path: Path, rows: Iterator[tuple[str, str, bool, float, float]]) -> None:
    """Write one row a test frame, all digits that a float32 has."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "clip", "label", "descriptor", "map_max"])
    for name, clip, label, descriptor, peak in rows:
        writer.writerow([name, clip, int(label), f"{descriptor:.9g}", f"{peak:.9g}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))
