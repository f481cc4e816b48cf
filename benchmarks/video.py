"""What finds the unusual frames of a video: presets, motion, and how an image is scored.

    python benchmarks/video.py ROOT --json [--only SETTING] > results/video.jsonl

ROOT is laid out as ShanghaiTech Campus is; UCSD Ped2 was used, 10 frames a second. Figures are
ROCAUC over all frames of a scene, as they are. One JSON object a line, for each setting and data:

- `planted`: every fourth training video is held out, and something is planted in the second half
  of it: a walker cut out of another video who passes 5 or 3.2 pixels a frame, or one 2.2 times as
  wide, at a walker's speed. ROCAUC is against the held-out videos as they are. By these the preset
  was chosen.
- `test`: the test clips, all training videos learnt from.

`seconds` are of a query of a frame, from its decoding to its map.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from machine import processor

from spade_faiss import Spade
from spade_faiss.datasets import Scene, load_stc
from spade_faiss.evaluation.points import point_of, results_at
from spade_faiss.evaluation.stc import SceneSplit
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import Frame, Source
from spade_faiss.images.video import read_frames, with_motion
from spade_faiss.metrics import image_rocauc

Video = npt.NDArray[np.uint8]
"""Frames, RGB, [n, H, W, 3]."""

SETTINGS: dict[str, dict[str, Any]] = {
    "video": {"preset": "video", "crop": None},
    "paper": {"crop": None},
    "paper, crop=224": {},
}
"""Parameters of `Spade` beside K = 20."""
POINTS: dict[str, dict[str, Any]] = {
    "": {},
    "sigma=4": {"sigma": 4.0},
    "motion=False": {"levels": (1, 2, 3)},
    "motion alone": {"levels": (4,)},
}
"""What is changed of the setting \"video\", by name; the others have the first alone."""
FAST, BRISK, WIDE = (5.0, 1.0), (3.2, 1.0), (1.2, 2.2)
"""What is planted: pixels a frame, and how wide."""
_SHARES = 0.005, 0.01, 0.02
_TIMED = 100
"""Frames of which a query is timed."""


Scores = dict[str, dict[str, list[float]]]
"""By the name of a point and of a kind of score, one a frame."""


def scores_of(spade: Spade, frames: Iterable[Source]) -> Scores:
    """Score frames by all that is compared."""
    names = list(POINTS) if spade.settings.motion else [""]
    points = [replace(point_of(spade), **POINTS[name]) for name in names]
    found: Scores = {name: {} for name in names}
    for results in results_at(spade, frames, points):
        for name, result in zip(names, results, strict=True):
            values = np.sort(result.input_map, axis=None)[::-1]
            one = {"descriptor": result.descriptor_score, "map_max": float(values[0])}
            for share in _SHARES:
                one[f"map_largest_{share:g}"] = float(values[: round(share * len(values))].mean())
            for kind, value in one.items():
                found[name].setdefault(kind, []).append(value)
    return found


def rocauc(scores: dict[str, list[float]], labels: Sequence[bool]) -> dict[str, float]:
    """Return the ROCAUC of each kind of score."""
    return {kind: round(image_rocauc(values, labels), 4) for kind, values in scores.items()}


# The test clips -----------------------------------------------------------------------------


def on_test(spade: Spade, scene: Scene, fps: float, step: int) -> Iterator[dict[str, Any]]:
    """Learn from a scene's videos, and score every `step`-th frame of its clips."""
    split = SceneSplit(scene, Path(), fps, motion=spade.settings.motion, normalise_clips=False)
    spade.fit(split.train(None), calibrate=False)
    labels = [label for clip in scene.clips for label in clip.labels][::step]
    scores = scores_of(spade, islice(split.queries(None), 0, None, step))
    start = time.perf_counter()
    count = sum(1 for _ in spade.query(islice(split.queries(None), _TIMED)))
    seconds = round((time.perf_counter() - start) / count, 4)
    for name, own in scores.items():
        yield {
            "point": name,
            "n_train": len(spade.index_),
            "n_test": len(labels),
            "rocauc": rocauc(own, labels),
            **({} if name else {"seconds": seconds}),
        }


# What is planted ----------------------------------------------------------------------------


def on_planted(spade: Spade, scene: Scene, step: int = 4) -> Iterator[dict[str, Any]]:
    """Learn from three of four training videos, and find what is planted in the others."""
    videos = [np.stack([one.image for one in read_frames(path)]) for path in scene.videos]
    rng = np.random.default_rng(0)
    held, learnt = videos[3::4], [video for i, video in enumerate(videos) if i % 4 != 3]
    spade.fit((one for video in learnt for one in every(video, 0, step)), calibrate=False)
    good = scores_of(spade, (one for video in held for one in every(video, 2, step)))
    wrong: dict[str, Scores] = {}
    for kind, (speed, width) in {"fast": FAST, "brisk": BRISK, "wide": WIDE}.items():
        changed = (planted(one, learnt, speed, width, rng) for one in held)
        frames = (one for video in changed for one in every(video, len(video) // 2 + 2, step))
        wrong[kind] = scores_of(spade, frames)
    for name, own in good.items():
        found = {}
        for kind, others in wrong.items():
            joined = {score: values + others[name][score] for score, values in own.items()}
            n, more = len(own["map_max"]), len(others[name]["map_max"])
            found[kind] = rocauc(joined, [False] * n + [True] * more)
        mean = {
            score: round(float(np.mean([v[score] for v in found.values()])), 4) for score in own
        }
        yield {"point": name, "n_train": len(spade.index_), "rocauc": mean, "by_kind": found}


def every(video: Video, first: int, step: int, fps: float = 10.0) -> Iterator[Frame]:
    """Yield some frames of a video, each with the one before it."""
    frames = (Frame(f"frame {i}", image, i / fps) for i, image in enumerate(video))
    return islice(with_motion(frames), first, None, step)


def planted(
    video: Video, others: list[Video], speed: float, width: float, rng: np.random.Generator
) -> Video:
    """Return a video with someone from another one in its second half."""
    other = others[rng.integers(len(others))]
    at = int(rng.integers(10, len(other) - 10))
    moved = np.abs(other[at].astype(np.float32) - other[at - 3]).mean(2)
    moved = cv2.GaussianBlur(moved, (0, 0), 5)
    moved[:40] = moved[-30:] = 0
    moved[:, :20] = moved[:, -20:] = 0
    y, x = np.unravel_index(moved.argmax(), moved.shape)
    box = slice(y - 12, y + 12), slice(x - 7, x + 7)
    cut = other[at][box].astype(np.float32)
    usual = np.median(other[::10], 0)[box]
    alpha = (np.abs(cut - usual).max(2) > 12).astype(np.float32)
    alpha = cv2.GaussianBlur(cv2.dilate(alpha, np.ones((3, 3))), (0, 0), 1)
    size = round(14 * width), 24
    cut, alpha = (np.asarray(cv2.resize(one, size)) for one in (cut, alpha))
    made, first = video.copy(), len(video) // 2
    left, way = float(rng.integers(40, 320)), 1 if rng.random() < 0.5 else -1
    for number in range(first, len(video)):
        at_x = round(left + way * speed * (number - first)) % (video.shape[2] - size[0])
        place = made[number, y - 12 : y + 12, at_x : at_x + size[0]]
        place[:] = np.round(place * (1 - alpha[..., None]) + cut * alpha[..., None])
    return made


def main() -> None:
    """Print one line a setting and data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--only", action="append", metavar="SETTING", help="may be given again")
    parser.add_argument("--data", choices=("planted", "test"), action="append")
    parser.add_argument("--fps", type=float, default=5.0, help="to learn from, for the test")
    parser.add_argument("--every", type=int, default=1, help="test every so many frames")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network: Backbone = load_backbone(args.backbone)
    for scene in load_stc(args.root):
        for name in args.only or SETTINGS:
            for data in args.data or ("planted", "test"):
                spade = Spade(network, **{"k": 20} | SETTINGS[name])
                test = data == "test"
                for found in (
                    on_test(spade, scene, args.fps, args.every)
                    if test
                    else on_planted(spade, scene)
                ):
                    record = {"data": data, "scene": scene.name, "setting": name, **found}
                    record |= {"every": args.every if test else 4, "backbone": args.backbone}
                    record |= {"threads": args.threads, "processor": processor()}
                    print(
                        json.dumps(record) if args.json else "  ".join(map(str, record.values())),
                        flush=True,
                    )
    print(f"torch threads: {args.threads}", file=sys.stderr)


if __name__ == "__main__":
    main()
