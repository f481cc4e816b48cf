"""Learning many images, with the thresholds that leave-one-out finds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from .setting import Result, Setting

IMAGES = 1000
BATCH = 32


def build_part(setting: Setting) -> Iterator[Result]:
    """Time `Spade.fit` of files."""
    count, batch = setting.sized(IMAGES, 4), setting.sized(BATCH, 2)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        setting.write_views(folder / "train", count, 1)
        # What is compiled, tuned and loaded at first is no part of an image's time.
        warm = setting.clock.host_seconds(
            lambda: setting.detector(batch).fit(list(setting.views(setting.args.k + 1, 3)))
        )
        setting.clock.forget_peak()
        spade = setting.detector(batch)
        _ = spade.network
        seconds = setting.clock.host_seconds(
            lambda: spade.fit(folder / "train", index=folder / "index")
        )
        yield {
            "part": "build",
            "way": f"{count} files",
            **setting.shape,
            "train_images": count,
            "batch": batch,
            "left_out": len(spade.calibration.peaks),
            "build_s": seconds,
            "s_an_image": seconds / count,
            "stages_total_s": dict(spade.stages.seconds),
            "peak_gib": setting.clock.peak_gib(),
            f"first_build_of_{setting.args.k + 1}_s": warm,
        }
