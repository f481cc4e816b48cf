"""Stage two at one level: all ways in turn, and what the fused search did."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from .checks import exactness, kernel_times, pairs, tiles_chosen
from .device import faiss_kind
from .level import CHUNK, Level
from .running import guarded
from .setting import Result, Setting


class Way(NamedTuple):
    """A way of searching: its call, how many images that does, and what measures it."""

    call: Callable[[], Any]
    images: float
    seconds: Callable[[Callable[[], Any]], float]


def level_part(setting: Setting, number: int) -> Iterator[Result]:
    """Time all ways of searching one level."""
    from spade_faiss.search import cuda as module

    args = setting.args
    level = Level(setting, number)
    shape = {
        "part": f"level {number + 1}",
        "patches": level.per_image,
        "channels": level.channels,
        "gflop": round(level.flops / 1e9, 2),
    } | setting.shape
    prepared = module.prepare(level.patches, level.per_image)
    prepare_s = setting.clock.gpu_seconds(lambda: module.prepare(level.patches, level.per_image))
    yield shape | {"way": "prepare", "s": prepare_s}

    def fused(batch: int) -> Any:
        return module.fused_in_images(
            level.queries[:batch], prepared, level.images[:batch], level.per_image
        )

    ways = {
        f"fused, batch {batch}": Way(partial(fused, batch), batch, setting.clock.gpu_seconds)
        for batch in args.batch
    }
    ways |= ways_of_others(setting, level)
    if not faiss_kind()[1]:
        yield shape | {"way": "faiss", "skipped": f"faiss: {faiss_kind()[0]}"}
    for result in timed(ways, setting):
        if "s_an_image" in result:
            result["tflops"] = round(level.flops / result["s_an_image"] / 1e12, 1)
        yield shape | result
    yield shape | {"way": "exactness"} | guarded(lambda: exactness(level, fused))
    yield shape | {"way": "pairs"} | guarded(lambda: pairs(level, prepared))
    yield shape | {"way": "kernels"} | guarded(lambda: kernel_times(setting, fused))
    yield shape | {"way": "tiles"} | guarded(tiles_chosen)
    yield shape | {"way": "memory", "peak_gib": setting.clock.peak_gib()}


def ways_of_others(setting: Setting, level: Level) -> dict[str, Way]:
    """Return the ways of others, as far as they are there."""
    clock = setting.clock
    every = -(-setting.args.k * level.per_image // CHUNK)
    chunks = min(every, 32)
    ways = {
        "cdist": Way(level.cdist, 1, clock.gpu_seconds),
        "bmm": Way(level.bmm, min(4, len(level.queries)), clock.gpu_seconds),
        "pairwise (SPADE-pytorch)": Way(
            partial(level.pairwise, chunks), chunks / every, clock.gpu_seconds
        ),
    }
    if faiss_kind()[1]:
        import faiss

        resources = faiss.StandardGpuResources()
        ways |= {
            "faiss index an image (SPADE-fast)": Way(
                partial(level.faiss_index, resources), 1, clock.host_seconds
            ),
            "faiss.knn_gpu": Way(partial(level.faiss_knn, resources), 1, clock.host_seconds),
        }
    return ways


def timed(ways: dict[str, Way], setting: Setting) -> Iterator[Result]:
    """Yield the time an image of each way, all in turn in each repeat; of what fails, why."""
    able: dict[str, Way] = {}
    for name, way in ways.items():
        first = guarded(partial(setting.clock.host_seconds, way.call))
        if isinstance(first, dict):
            yield {"way": name} | first
        else:
            able[name] = way
    times: dict[str, list[float]] = {}
    for _ in range(setting.args.repeats):
        for name, way in able.items():
            seconds = guarded(partial(way.seconds, way.call))
            if isinstance(seconds, float):
                times.setdefault(name, []).append(seconds / way.images)
    for name, values in times.items():
        yield {
            "way": name,
            "s_an_image": statistics.median(values),
            "least_s": min(values),
            "most_s": max(values),
        }
