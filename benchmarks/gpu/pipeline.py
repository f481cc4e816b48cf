"""From files to maps, one stage after the other, and by `Spade`."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .setting import Result, Setting


class Serial:
    """All stages from files to maps, each ended before the next begins.

    Attributes
    ----------
    seconds : dict of str to list of float
        The times of each stage so far.
    """

    def __init__(self, setting: Setting) -> None:
        from spade_faiss.images import Framing
        from spade_faiss.search.cuda import prepare

        self._clock, self._k = setting.clock, setting.args.k
        self._network = setting.network()
        train = setting.framed(setting.views(setting.args.train, 1))
        features = setting.features(self._network, train)
        self._descriptors = torch.cat([batch.descriptors for batch in features])
        self._galleries = []
        for number in range(len(features[0].levels)):
            level = torch.cat([batch.levels[number].flatten(1, 2) for batch in features])
            self._galleries.append(prepare(level.flatten(0, 1), level.shape[1]))
        self._framing = Framing.choose(setting.side, setting.crop, (1, 1))
        self.seconds: dict[str, list[float]] = {}
        self._placings: dict[tuple[int, int], Any] = {}

    def run(self, paths: list[str]) -> None:
        """Take files through all stages."""
        from spade_faiss.detector.gpu import nearest_descriptors
        from spade_faiss.images import load_images

        loaded = self._stage("decode", lambda: list(load_images(paths, self._framing)))
        new = self._stage("network", lambda: self._features([one.wide for one in loaded]))
        _, ids = self._stage(
            "stage_one", lambda: nearest_descriptors(new.descriptors, self._descriptors, self._k)
        )
        levels = self._stage("stage_two", lambda: self._distances(new.levels, ids))
        maps = self._stage("maps", lambda: self._maps(levels, loaded[0].size))
        self._stage("to_host", lambda: [one.cpu() for one in (*levels, *maps)])

    def _stage(self, name: str, call: Callable[[], Any]) -> Any:
        found = []
        spent = self._clock.host_seconds(lambda: found.append(call()))
        self.seconds.setdefault(name, []).append(spent)
        return found[0]

    def _features(self, images: list[Any]) -> Any:
        return self._network.see(torch.from_numpy(np.stack(images)).to(self._network.device))

    def _distances(self, levels: Any, ids: Any) -> list[Any]:
        from spade_faiss.search.cuda import fused_in_images

        distances = []
        for values, gallery in zip(levels, self._galleries, strict=True):
            near, _ = fused_in_images(values.flatten(1, 2), gallery, ids, gallery.per_image)
            distances.append(near.sqrt().view(values.shape[:3]))
        return distances

    def _maps(self, levels: list[Any], size: tuple[int, int]) -> tuple[Any, Any]:
        from spade_faiss.detector.settings import SIGMA
        from spade_faiss.images.framing import Placing
        from spade_faiss.maps.smoothing import smoothing_of

        device = self._network.device
        shapes = tuple(one.shape[1:] for one in levels)
        on_input = smoothing_of(shapes, self._framing.size, SIGMA, device)(levels)
        if size not in self._placings:
            self._placings[size] = Placing.of(self._framing, size, device)
        return on_input, self._placings[size](on_input)


def pipeline_part(setting: Setting) -> Iterator[Result]:
    """Time each stage from files to maps, a batch at a time."""
    serial = Serial(setting)
    for batch in setting.args.batch:
        with tempfile.TemporaryDirectory() as folder:
            paths = setting.write_views(Path(folder), batch, 2)
            serial.run(paths)
            serial.seconds.clear()
            for _ in range(setting.args.repeats):
                serial.run(paths)
        stages = serial.seconds.items()
        medians = {f"{name}_s": statistics.median(times) / batch for name, times in stages}
        total = sum(medians.values())
        yield {
            "part": "pipeline",
            "way": f"batch {batch}",
            **setting.shape,
            "images_a_second": 1 / total,
            "s_an_image": total,
            **medians,
            "peak_gib": setting.clock.peak_gib(),
        }


def spade_part(setting: Setting) -> Iterator[Result]:
    """Time `Spade.query` of files, of an index without thresholds."""
    batch = max(setting.args.batch)
    with setting.fitted(batch, calibrate=False) as (spade, fit_s, folder):
        new = setting.write_views(folder / "new", max(8, 4 * batch), 2)
        list(spade.query(new[: len(new) // 4]))
        seconds = setting.clock.host_seconds(lambda: list(spade.query(new)))
        yield {
            "part": "spade",
            "way": f"batch {batch}",
            **setting.shape,
            "fit_s": fit_s,
            "images": len(new),
            "images_a_second": len(new) / seconds,
            "s_an_image": seconds / len(new),
            "peak_gib": setting.clock.peak_gib(),
        }
