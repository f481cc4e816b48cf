"""From PNG files to results and to written maps, by the public interface."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .setting import Result, Setting

FILES = 512
BATCHES = (8, 32, 64)
THREADS = (1, 2, 4, 8, 16)
REPEATS = 3


def files_part(setting: Setting) -> Iterator[Result]:
    """Time decoding alone, results, and written maps."""
    with setting.fitted(setting.sized(32, 2)) as (spade, _, folder):
        paths = setting.write_views(folder / "new", setting.sized(FILES, 4), 2)
        yield from decoding(setting, paths)
        for batch in BATCHES[: setting.sized(len(BATCHES), 1)]:
            by_batch = spade.with_options(batch_size=setting.sized(batch, 2))
            yield network_alone(setting, by_batch, batch)
            yield from queries(setting, by_batch, paths, batch)
            yield from written(setting, by_batch, folder, paths, batch)


def decoding(setting: Setting, paths: list[str]) -> Iterator[Result]:
    """Time decoding and framing alone, by numbers of threads: a floor."""
    from spade_faiss.images import Framing, load_images

    framing = Framing.choose(setting.side, setting.crop, (1, 1))
    list(load_images(paths, framing))  # files come from memory from now on
    for threads in THREADS[: setting.sized(len(THREADS), 2)]:

        def decode(threads: int = threads) -> None:
            for _ in load_images(paths, framing, workers=threads):
                pass

        median = setting.clock.median_seconds(decode, setting.sized(REPEATS, 1))
        yield {
            "part": "files",
            "way": f"decoding alone, threads: {threads}",
            "cores": os.cpu_count(),
            **_rate(median, len(paths)),
        }


def network_alone(setting: Setting, spade: Any, batch: int) -> Result:
    """Time the network alone, of batches in the host's memory."""
    network, frames = spade.network, setting.framed(setting.views(setting.sized(batch, 2), 2))
    calls = setting.sized(max(1, FILES // batch), 1)

    def see() -> None:
        for _ in range(calls):
            network(frames)

    see()
    median = setting.clock.median_seconds(see, setting.sized(REPEATS, 1))
    return {
        "part": "files",
        "way": f"network alone, batch {batch}",
        **setting.shape,
        **_rate(median, calls * len(frames)),
    }


def queries(setting: Setting, spade: Any, paths: list[str], batch: int) -> Iterator[Result]:
    """Time `Spade.query`: every map and verdict is taken, none kept."""

    def query() -> None:
        for result in spade.query(paths):
            assert np.asarray(result.map).shape and result.verdict

    yield from _measured(setting, spade, "results", batch, len(paths), query)


def written(
    setting: Setting, spade: Any, folder: Path, paths: list[str], batch: int
) -> Iterator[Result]:
    """Time `write_query`: `scores.csv` and a TIFF file of each map."""
    from spade_faiss.images import Found

    try:
        from spade_faiss.report import write_query
    except ImportError as error:
        yield {"part": "files", "way": f"written maps, batch {batch}", "skipped": str(error)}
        return

    found = [Found(Path(path), Path(Path(path).name), None) for path in paths]
    places: list[Path] = []

    def write() -> None:
        places.append(folder / f"out {batch} {len(places)}")
        write_query(spade, found, places[-1], overlays=False)

    for result in _measured(setting, spade, "written maps", batch, len(paths), write):
        assert all(len(list((place / "maps").iterdir())) == len(paths) for place in places)
        yield result
    for place in places:
        shutil.rmtree(place)


def _measured(
    setting: Setting, spade: Any, way: str, batch: int, count: int, call: Any
) -> Iterator[Result]:
    """Yield the rate of a call, and the seconds of its stages an image."""
    call()
    setting.clock.forget_peak()
    repeats = setting.sized(REPEATS, 1)
    before = dict(spade.stages.seconds)
    median = setting.clock.median_seconds(call, repeats)
    stages = {
        name: (seconds - before.get(name, 0.0)) / repeats / count
        for name, seconds in spade.stages.seconds.items()
        if seconds > before.get(name, 0.0)
    }
    yield {
        "part": "files",
        "way": f"{way}, batch {batch}",
        **setting.shape,
        **_rate(median, count),
        "stages_s": stages,
        "peak_gib": setting.clock.peak_gib(),
    }


def _rate(seconds: float, count: int) -> Result:
    return {
        "images": count,
        "images_a_second": count / seconds,
        "s_an_image": seconds / count,
    }
